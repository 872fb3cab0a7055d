//! Graphics processors: what a run that asks for them would get.

use ibid_core::cdi::{self, GPU_KINDS};
use ibid_core::gpus::GpuRequest;

use super::{Finding, State};
use crate::gpus::{Error, Host};

/// Tools by which vendors write CDI files for their kinds.
const TOOLS: [&str; 2] = ["nvidia-ctk", "amd-ctk"];

/// CDI files, drivers that are loaded, and whether what they need is there.
pub fn gpus(host: &Host) -> Finding {
    let ability = "GPUs";
    let lacks = |error: Error, mend: Option<String>| {
        let cost = "`--gpus` is refused";
        Finding::lacks(ability, State::Degraded, error.to_string(), cost, mend)
    };
    let files = match host.cdi_files() {
        Ok(files) => files,
        Err(error) => return lacks(error, None),
    };
    let of_kind = |kind: &str| -> Vec<&cdi::File> { files.iter().filter(|file| file.kind == kind).collect() };
    let mut found = Vec::new();
    match host.find(&GpuRequest::All) {
        Ok(gpus) => found.push(gpus.words),
        Err(Error::None { .. }) => {}
        Err(error) => {
            let mend = match &error {
                Error::NoNodes { .. } => Some("sudo nvidia-modprobe -u -c=0".to_owned()),
                Error::Stale { file, .. } => {
                    let tool = TOOLS[usize::from(of_kind(GPU_KINDS[0]).is_empty())];
                    Some(format!("sudo {tool} cdi generate --output={file}"))
                }
                _ => None,
            };
            return lacks(error, mend);
        }
    }
    if host.root.join("dev/kfd").exists() && of_kind(GPU_KINDS[1]).is_empty() {
        return Finding::lacks(
            ability,
            State::Degraded,
            [&found[..], &["AMD driver, but no CDI file".to_owned()]].concat().join("; "),
            "runs cannot have AMD's GPUs",
            Some("sudo amd-ctk cdi generate --output=/etc/cdi/amd.json".to_owned()),
        );
    }
    let others: Vec<String> = files
        .iter()
        .filter(|file| !GPU_KINDS.contains(&file.kind.as_str()))
        .map(|file| format!("{} of {}", names(file), file.path))
        .collect();
    if !others.is_empty() {
        found.push(format!("other devices: {}", others.join(", ")));
    }
    Finding::works(ability, if found.is_empty() { "none found".to_owned() } else { found.join("; ") })
}

/// The first devices of a file, as `--gpus` takes them.
fn names(file: &cdi::File) -> String {
    const SHOWN_MAX: usize = 4;
    let shown: Vec<String> =
        file.devices.iter().take(SHOWN_MAX).map(|(device, _)| format!("{}={device}", file.kind)).collect();
    let more = if file.devices.len() > SHOWN_MAX { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
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
            let finding = gpus(&Host { root: place.path().to_owned(), ..Host::default() });
            assert_eq!((finding.state, finding.detail.as_str()), (state, detail));
            assert_eq!(finding.mend.as_deref().map(|mend| mend.split(' ').nth(1).unwrap_or_default()), mend);
        };
        let driver = (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat\n",
        );
        let cdi = (
            "etc/cdi/nvidia.yaml",
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: '0', containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}]\n",
        );
        let lab = (
            "var/run/cdi/lab.json",
            "{\"cdiVersion\": \"0.5.0\", \"kind\": \"lab.org/x\", \"devices\": [{\"name\": \"a\"}]}",
        );
        check(&[], State::Works, "none found", None);
        check(
            &[driver],
            State::Degraded,
            "the NVIDIA driver 535.104.05 is loaded, but there is no /dev/nvidiactl",
            Some("nvidia-modprobe"),
        );
        check(&[driver, ("dev/nvidia0", ""), cdi], State::Works, "1 GPU of /etc/cdi/nvidia.yaml", None);
        let stale = "/etc/cdi/nvidia.yaml names /dev/nvidia0, which is not there";
        check(&[driver, cdi], State::Degraded, stale, Some("nvidia-ctk"));
        check(&[("dev/kfd", "")], State::Degraded, "AMD driver, but no CDI file", Some("amd-ctk"));
        check(&[lab], State::Works, "other devices: lab.org/x=a of /var/run/cdi/lab.json", None);
        check(
            &[("etc/cdi/x.json", "{")],
            State::Degraded,
            "/etc/cdi/x.json: line 2: while parsing a node, did not find expected node content",
            None,
        );
    }
}
