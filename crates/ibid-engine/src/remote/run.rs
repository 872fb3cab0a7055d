//! A run on Docker or Podman, to its end.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ibid_core::run::{Network, RunSpec};
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::{ExitStatus, MountKind, Overlay, Rootfs, Spec, SystemCalls};
use ibid_store::{Found, MergedView, Scratch, Store};

use super::attach::{self, Attached, Attended};
use super::container::{self, Mounts, Parts};
use super::http::{escaped, hijack};
use super::person::{self, Impossible, Users};
use super::{Engine, Error, Kind, Name, init};
use crate::identity::{HostUser, Identity};
use crate::native::{self, Ended, OnTerminate, Watch, io};

/// Keys after which an engine would leave a program alone: none that anybody types.
const DETACH_KEYS: &str = "ctrl-^,ctrl-],ctrl-^,ctrl-],ctrl-^";
/// What an engine makes itself for a network of its own.
const OF_NETWORK: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

impl Engine {
    /// Executes a run to its end. Nothing runs in the container when this returns, and it is gone.
    pub fn run(
        &self,
        store: &Store,
        spec: &RunSpec,
        name: &Name,
        host: &HostUser,
        trust: &HostTrust,
        watch: Option<Watch<'_>>,
    ) -> Result<Ended, native::Error> {
        if let Some(limit) = self.lacking(spec) {
            return Err(self.unable(format!(
                "it cannot limit {limit} on this machine; with `--limits=best-effort` the run goes on without"
            )).into());
        }
        let image = store.image(&spec.image)?;
        let lowers = store.lowers(&image.rootfs.diff_ids);
        let view = MergedView::new(lowers.clone());
        let owner = fs::metadata(&spec.project).map_err(io("read", &spec.project))?;
        let users = Users {
            image_user: &image.config.user,
            passwd: &native::read_text(&view, "/etc/passwd")?,
            group: &native::read_text(&view, "/etc/group")?,
        };
        let wanted = spec.options.user.as_deref();
        let identity =
            person::decide(self, host, (owner.uid(), owner.gid()), wanted, &users).map_err(|impossible| {
                match impossible {
                    Impossible::User(unknown) => native::Error::from(unknown),
                    Impossible::Engine(error) => error.into(),
                }
            })?;
        let scratch = store.scratch()?;
        let root = Rootfs::Overlay(Overlay { lowers, upper: None, volatile: true });
        let mut sandbox = native::sandbox_of(spec, host, &identity, trust, &image.config, &view, root)?;
        if matches!(spec.options.network, Network::Private) {
            sandbox.files.retain(|file| !OF_NETWORK.contains(&file.target.as_str()));
        }
        let known_as = self.provide(store, &spec.image, name)?;
        let mounts = self.mounts(&sandbox, &scratch, &identity, host, &view)?;
        // From here on, nothing of the store is needed.
        store.unlock();
        let profile = self.profile(&sandbox, &scratch)?;
        let body = container::create(
            self,
            &Parts {
                spec: &sandbox,
                image: &known_as,
                run: &spec.id,
                mounts: &mounts,
                user_namespace: person::user_namespace(self, &identity),
                profile: profile.as_deref(),
            },
        )?;
        self.execute(&format!("ibid-{}", spec.id), &body, &sandbox, watch)
    }

    /// The first limit that is asked for and that the engine cannot keep.
    fn lacking(&self, spec: &RunSpec) -> Option<&'static str> {
        let limits = &spec.options.limits;
        let asked = [
            ("processors", limits.millicpus.is_some()),
            ("memory", limits.memory_bytes.is_some()),
            ("processes", limits.pids.is_some()),
        ];
        asked.iter().find(|(name, asked)| *asked && self.lacking_limits.contains(name)).map(|(name, _)| *name)
    }

    fn execute(
        &self,
        name: &str,
        body: &serde_json::Value,
        sandbox: &Spec,
        watch: Option<Watch<'_>>,
    ) -> Result<Ended, native::Error> {
        let signals = attach::catch_signals()?;
        let path = format!("/containers/create?name={}", escaped(name));
        let made = self.post("make the container", &path, Some(body))?;
        let container = Made { engine: self, id: made["Id"].as_str().unwrap_or(name).to_owned() };
        let path = format!(
            "{}/containers/{}/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys={}",
            self.api,
            container.id,
            escaped(DETACH_KEYS)
        );
        let attached = hijack(&self.address, &path).map_err(self.lost())?;
        let (stream, there) = attached.map_err(|answer| Error::Refused {
            kind: self.kind,
            action: "attach to the container",
            message: answer.message(),
        })?;
        let (on_start, listener, on_terminate) = match watch {
            Some(watch) => {
                (watch.before_program)(sandbox);
                (Some(watch.on_start), Some(watch.listener), watch.on_terminate)
            }
            None => (None, None, OnTerminate::PassOn),
        };
        self.post("start the container", &format!("/containers/{}/start", container.id), None)?;
        if let Some(on_start) = on_start {
            on_start();
        }
        let attached = Attached {
            engine: self,
            container: &container.id,
            signals,
            stream,
            there,
            terminal: sandbox.terminal,
            listener,
            on_terminate,
        };
        let Attended { code, unwritten } = attached.attend()?;
        Ok(Ended { unwritten, ..Ended::new((ExitStatus::Code(code), None)) })
    }

    /// Everything that is mounted, with what is written for it into the scratch folder.
    fn mounts(
        &self,
        sandbox: &Spec,
        scratch: &Scratch,
        identity: &Identity,
        host: &HostUser,
        view: &MergedView,
    ) -> Result<Mounts, native::Error> {
        let mut mounts = Mounts::default();
        let own = own_program().map_err(|source| Error::OwnProgram { kind: self.kind, source })?;
        mounts.binds.push((own, init::PATH.to_owned(), true));
        let mut files = Files::new(scratch)?;
        if identity.make_home {
            mounts.binds.push((files.home(identity, host)?, identity.user.home.clone(), false));
        }
        for file in &sandbox.files {
            mounts.binds.push((files.put(&file.content, file.mode)?, file.target.clone(), true));
        }
        for mount in &sandbox.mounts {
            let target = mount.target.clone();
            match &mount.kind {
                MountKind::Bind { source, read_only, .. } => match is_device(source) {
                    true => mounts.devices.push((source.clone(), target)),
                    false => mounts.binds.push((source.clone(), target, *read_only)),
                },
                MountKind::Tmpfs(tmpfs) => mounts.tmpfs.push((target, *tmpfs)),
                MountKind::Underneath => {
                    let place = Path::new(&mount.target);
                    match view.find(place).map_err(io("read", place))? {
                        // Never the store's own file, which the program could change.
                        Some(Found::Other(path)) => {
                            let content = fs::read(&path).map_err(io("read", &path))?;
                            let mode = fs::metadata(&path).map_err(io("read", &path))?.mode() & 0o777;
                            mounts.binds.push((files.put(&content, mode)?, target, false));
                        }
                        _ => mounts.kept.push(target),
                    }
                }
                MountKind::File { content, mode, .. } => {
                    mounts.binds.push((files.put(content, *mode)?, target, true));
                }
            }
        }
        Ok(mounts)
    }

    /// Podman reads a profile of system calls from a file.
    fn profile(&self, sandbox: &Spec, scratch: &Scratch) -> Result<Option<String>, native::Error> {
        match &sandbox.system_calls {
            SystemCalls::Profile(profile) if self.kind == Kind::Podman => {
                let path = scratch.path().join("seccomp.json");
                fs::write(&path, &profile.text).map_err(io("write", &path))?;
                Ok(Some(path.display().to_string()))
            }
            _ => Ok(None),
        }
    }
}

/// A container, removed with everything in it when this is dropped.
struct Made<'a> {
    engine: &'a Engine,
    id: String,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // Where the engine is gone, there is nobody to ask.
        let _gone = self.engine.request("DELETE", &format!("/containers/{}?force=1&v=1", self.id), None);
    }
}

/// Small files for a container, in the run's scratch folder.
struct Files {
    folder: PathBuf,
    count: usize,
}

impl Files {
    fn new(scratch: &Scratch) -> Result<Self, native::Error> {
        let folder = scratch.path().join("files");
        fs::create_dir(&folder).map_err(io("make the folder", &folder))?;
        Ok(Self { folder, count: 0 })
    }

    fn put(&mut self, content: &[u8], mode: u32) -> Result<PathBuf, native::Error> {
        let path = self.folder.join(self.count.to_string());
        self.count += 1;
        fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(io("write", &path))?;
        Ok(path)
    }

    /// A home for a user that the image does not know.
    fn home(&self, identity: &Identity, host: &HostUser) -> Result<PathBuf, native::Error> {
        let path = self.folder.join("home");
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io("make the folder", &path))?;
        if host.uid == 0 {
            let ids = (Some(identity.user.uid), Some(identity.user.gid));
            std::os::unix::fs::chown(&path, ids.0, ids.1).map_err(io("set the owner of", &path))?;
        }
        Ok(path)
    }
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_char_device() || kind.is_block_device()
    })
}

/// Where this program's file is for others.
fn own_program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    fs::metadata(&path)?;
    Ok(path)
}
