//! Graphics processors: drivers, and the files that say how a container gets them (Container Device Interface).

use std::fs;
use std::path::Path;

use super::{Finding, State};

/// Where CDI files lie (CDI specification, "CDI Kind and files").
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Drivers that are loaded, their devices, and CDI files for them.
pub fn gpus() -> Finding {
    look(Path::new("/"))
}

fn look(root: &Path) -> Finding {
    let ability = "GPUs";
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let files: Vec<(String, String)> = FOLDERS.iter().flat_map(|folder| cdi_files(root, folder)).collect();
    let shown = |kind: &str| {
        let of_kind: Vec<&str> =
            files.iter().filter(|(_, text)| text.contains(kind)).map(|(path, _)| path.as_str()).collect();
        (!of_kind.is_empty()).then(|| of_kind.join(", "))
    };
    let lacks = |detail: String, cost: &str, mend: &str| {
        Finding::lacks(ability, State::Degraded, detail, cost, Some(mend.to_owned()))
    };
    let mut found = Vec::new();
    if let Ok(version) = fs::read_to_string(at("/proc/driver/nvidia/version")) {
        let words = version.split_whitespace();
        let number =
            words.clone().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
        let driver = format!("NVIDIA driver {}", number.unwrap_or("of an unknown version"));
        if !at("/dev/nvidiactl").exists() {
            let cost = "programs find no GPU";
            return lacks(format!("{driver}, but no `/dev/nvidiactl`"), cost, "sudo nvidia-modprobe -u -c=0");
        }
        let Some(files) = shown("nvidia.com/gpu") else {
            let cost = "containers do not know which devices and libraries belong to a GPU";
            let mend = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml";
            return lacks(format!("{driver}, but no CDI file in {}", FOLDERS.join(" or ")), cost, mend);
        };
        found.push(format!("{driver}, described in {files}"));
    }
    if at("/dev/kfd").exists() {
        let Some(files) = shown("amd.com/gpu") else {
            let cost = "containers do not know which devices belong to a GPU";
            let mend = "sudo amd-ctk cdi generate --output=/etc/cdi/amd.json";
            return lacks("AMD driver, but no CDI file".to_owned(), cost, mend);
        };
        found.push(format!("AMD driver, described in {files}"));
    }
    if found.is_empty() && !files.is_empty() {
        let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        found.push(format!("no driver of NVIDIA or AMD; CDI files {}", names.join(", ")));
    }
    Finding::works(ability, if found.is_empty() { "none found".to_owned() } else { found.join("; ") })
}

/// Paths and texts of the CDI files in a folder, sorted.
fn cdi_files(root: &Path, folder: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(root.join(folder.trim_start_matches('/'))).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_cdi = [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end));
            is_cdi.then(|| Some((format!("{folder}/{name}"), fs::read_to_string(entry.path()).ok()?)))?
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_of_a_gpu_is_told() {
        let check = |files: &[(&str, &str)], state, detail: &str, mend: Option<&str>| {
            let place = ibid_testing::Place::new();
            for (name, text) in files {
                place.file(name, text);
            }
            let finding = look(place.path());
            assert_eq!((finding.state, finding.detail.as_str()), (state, detail));
            assert_eq!(finding.mend.as_deref().map(|mend| mend.split(' ').nth(1).unwrap_or_default()), mend);
        };
        let driver = (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat\n",
        );
        let cdi = ("etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n");
        check(&[], State::Works, "none found", None);
        check(
            &[driver],
            State::Degraded,
            "NVIDIA driver 535.104.05, but no `/dev/nvidiactl`",
            Some("nvidia-modprobe"),
        );
        let no_file = "NVIDIA driver 535.104.05, but no CDI file in /etc/cdi or /var/run/cdi";
        check(&[driver, ("dev/nvidiactl", "")], State::Degraded, no_file, Some("nvidia-ctk"));
        let all = "NVIDIA driver 535.104.05, described in /etc/cdi/nvidia.yaml";
        check(&[driver, ("dev/nvidiactl", ""), cdi], State::Works, all, None);
        check(&[("dev/kfd", ""), cdi], State::Degraded, "AMD driver, but no CDI file", Some("amd-ctk"));
        check(&[cdi], State::Works, "no driver of NVIDIA or AMD; CDI files /etc/cdi/nvidia.yaml", None);
    }
}
