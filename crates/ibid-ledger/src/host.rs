//! The machine of a run, as the kernel tells it. Everything here is a few small files: it costs less than a millisecond.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::record::{Gpu, Host};

/// Enough of `/proc/cpuinfo` for its first processor: the kernel makes the text as far as it is read.
const CPUINFO_BYTES: u64 = 4096;

/// This machine, for a run of `user` on `engine`.
pub fn host(user: String, uid: u32, engine: &str) -> Host {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let system = rustix::system::sysinfo();
    Host {
        name: text(names.nodename()),
        user,
        uid,
        architecture: text(names.machine()),
        kernel: text(names.release()),
        cpu: cpu().unwrap_or_default(),
        cpus: rustix::thread::sched_getaffinity(None).map_or(0, |cpus| cpus.count()),
        memory: (system.totalram as u64).saturating_mul(u64::from(system.mem_unit)),
        gpus: gpus(Path::new("/")),
        engine: engine.to_owned(),
    }
}

fn cpu() -> Option<String> {
    let mut text = String::new();
    File::open("/proc/cpuinfo").ok()?.take(CPUINFO_BYTES).read_to_string(&mut text).ok()?;
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    field("model name").or_else(|| {
        // ARM's kernels tell numbers.
        Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?))
    })
}

/// The GPUs whose drivers tell of them below `root`: NVIDIA's in `/proc/driver/nvidia`, AMD's in `/sys`.
fn gpus(root: &Path) -> Vec<Gpu> {
    let mut gpus = Vec::new();
    let nvidia = root.join("proc/driver/nvidia");
    if let Ok(version) = fs::read_to_string(nvidia.join("version")) {
        let driver = nvidia_driver(&version).unwrap_or_default();
        for information in sorted(&nvidia.join("gpus")) {
            let text = fs::read_to_string(information.join("information")).unwrap_or_default();
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
            gpus.extend(model.map(|model| Gpu { model: model.trim().to_owned(), driver: driver.clone() }));
        }
    }
    if let Ok(version) = fs::read_to_string(root.join("sys/module/amdgpu/version")) {
        for card in sorted(&root.join("sys/class/drm")) {
            let model = fs::read_to_string(card.join("device/product_name")).unwrap_or_default();
            let is_card = card.file_name().is_some_and(|name| !name.to_string_lossy().contains('-'));
            if is_card && !model.trim().is_empty() {
                gpus.push(Gpu { model: model.trim().to_owned(), driver: version.trim().to_owned() });
            }
        }
    }
    gpus
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 …` has its version in one word of digits and dots.
fn nvidia_driver(text: &str) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

fn sorted(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let host = host("ann".to_owned(), 1000, "native");
        assert!(!host.name.is_empty() && !host.kernel.is_empty() && !host.cpu.is_empty(), "{host:?}");
        assert!(host.cpus > 0 && host.memory > 1 << 20, "{host:?}");
    }

    #[test]
    fn drivers_tell_models_and_versions() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("ours");
            fs::write(path, text).expect("ours");
        };
        assert_eq!(gpus(root.path()), []);
        write(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version: 12.2.0\n",
        );
        write(
            "proc/driver/nvidia/gpus/0000:01:00.0/information",
            "Model: \t\t NVIDIA H200\nIRQ:   \t\t 18\n",
        );
        write("sys/module/amdgpu/version", "6.3.6\n");
        write("sys/class/drm/card0/device/product_name", "Instinct MI300X\n");
        write("sys/class/drm/card0-DP-1/device/product_name", "Instinct MI300X\n");
        let gpu = |model: &str, driver: &str| Gpu { model: model.to_owned(), driver: driver.to_owned() };
        assert_eq!(gpus(root.path()), [gpu("NVIDIA H200", "570.86.15"), gpu("Instinct MI300X", "6.3.6")]);
    }
}
