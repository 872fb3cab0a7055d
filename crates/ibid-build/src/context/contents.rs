//! What the files of a selection hold: remembered where they have not changed, else read, in parallel.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ibid_files::parallel;
use ibid_files::stamp::Stamp;
use ibid_files::stat_cache::{self, Clock, StatCache};

use super::entry::Content;
use super::{Context, Entry, Error, Kind, Selection};

impl Context {
    /// Sees to it that the content of every file of `selection` is known. `read_ns` is the present time.
    pub(super) fn learn_contents(&self, selection: &Selection, read_ns: i64) -> Result<(), Error> {
        let files = || {
            let entries = selection.sources.iter().flat_map(|source| source.entries());
            entries
                .map(|(_, entry)| entry)
                .filter(|entry| matches!(entry.kind, Kind::File { .. }) && entry.content().is_none())
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache.get_or_insert_with(|| match &self.cache_file {
            Some(file) => StatCache::load(file, stat_cache::BLAKE3),
            None => StatCache::new(stat_cache::BLAKE3),
        });
        let mut cursor = 0;
        let mut unknown: Vec<&Entry> = Vec::new();
        for entry in files() {
            match cache.look_up(&mut cursor, entry.path_bytes(), entry.stamp()) {
                Some(hash) => entry.set_content(Content { hash, size: entry.stamp().size }),
                None => unknown.push(entry),
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let clock = Clock::of(&self.root_fd);
        for (entry, stamp) in self.read_all(&unknown)? {
            if let Some(content) = entry.content()
                && self.cache_file.is_some()
                && stat_cache::is_settled(clock, &stamp, read_ns)
            {
                cache.learn(entry.path_bytes(), stamp, content.hash);
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
