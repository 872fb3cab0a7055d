//! What the files of a selection hold: remembered where they have not changed, else read, in parallel.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ibid_files::folder_cache::LookUps;
use ibid_files::parallel;
use ibid_files::stamp::Stamp;
use ibid_files::stat_cache::{self, Clock};

use super::entry::Content;
use super::{Context, Entry, Error, Kind, Selection};

impl Context {
    /// Sees to it that the content of every file of `selection` is known.
    pub(super) fn learn_contents(&self, selection: &Selection) -> Result<(), Error> {
        // Held to the end: who asks for the same files meanwhile finds them read.
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut look_ups = self.cache().map(LookUps::of);
        let mut unknown: Vec<&Entry> = Vec::new();
        for source in &selection.sources {
            for (_, entry) in source.entries() {
                if !matches!(entry.kind, Kind::File { .. }) || entry.content().is_some() {
                    continue;
                }
                // The walk has looked up those of folders.
                let look_ups = look_ups.as_mut().filter(|_| !source.is_folder());
                let stamp = entry.stamp();
                match look_ups.and_then(|it| it.content(entry.path_bytes(), &stamp, &mut learnt)) {
                    Some(hash) => entry.set_content(Content { hash, size: stamp.size }),
                    None => unknown.push(entry),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let clock = Clock::of(&self.root_fd);
        let read_ns = (self.now_ns)();
        for (entry, stamp) in self.read_all(&unknown)? {
            if let Some(content) = entry.content()
                && self.cache_file.is_some()
                && stat_cache::is_settled(clock, &stamp, read_ns)
            {
                learnt.read(entry.path_bytes(), stamp, content.hash);
            }
        }
        Ok(())
    }

    /// Reads files in parallel and sets their content; gives the stamps they were read with.
    fn read_all<'a>(&self, files: &[&'a Entry]) -> Result<Vec<(&'a Entry, Stamp)>, Error> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let work = || {
            let mut stamps = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let Some(entry) = files.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let result = self.open_file(entry).and_then(|mut file| {
                    let size = file.size();
                    entry.set_content(Content { hash: file.read(self, size, |_| Ok(()))?, size });
                    Ok((*entry, file.stamp()))
                });
                match result {
                    Ok(stamp) => stamps.push(stamp),
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(stamps)
        };
        // A thread costs more than reading a few files does.
        let threads = parallel::threads().min(files.len() / 16 + 1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut stamps = work();
            for other in others {
                match other.join() {
                    Ok(Ok(more)) => {
                        stamps = stamps.map(|mut all| {
                            all.extend(more);
                            all
                        })
                    }
                    Ok(Err(error)) => stamps = stamps.and(Err(error)),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            stamps
        })
    }
}

#[cfg(test)]
mod tests;
