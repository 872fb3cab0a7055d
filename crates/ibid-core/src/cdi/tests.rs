use super::*;

/// As `nvidia-ctk cdi generate` writes it.
const NVIDIA: &str = r#"---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - ../libnvidia-allocator.so.1::/usr/lib/x86_64-linux-gnu/gbm/nvidia-drm_gbm.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  - args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu, --folder=/usr/lib/other]
    hookName: createContainer
    path: /usr/bin/nvidia-ctk
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, bind]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - {path: /dev/nvidia1, hostPath: /host/dev/nvidia1}
    additionalGids: [44]
  name: "1"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
  name: all
kind: nvidia.com/gpu
"#;

const LAB: &str = r#"{"cdiVersion": "0.8.0", "kind": "lab.org/full", "devices": [
    {"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/full"}], "netDevices": []}}]}"#;

fn files() -> Vec<File> {
    vec![
        parse("/etc/cdi/nvidia.yaml", 0, NVIDIA).expect("sound"),
        parse("/etc/cdi/lab.json", 0, LAB).expect("sound"),
    ]
}

/// The nodes of what is chosen.
fn nodes(files: &[File], request: &str) -> Result<Vec<String>, Error> {
    let (chosen, left) = choose(files, &request.parse().expect("a request"))?;
    assert_eq!(left, None, "{request}");
    Ok(chosen.edits.iter().flat_map(|edits| &edits.device_nodes).map(|node| node.path.clone()).collect())
}

#[test]
fn devices_are_chosen_by_every_kind_of_request() {
    let files = files();
    let check = |request: &str, expected: &[&str]| {
        assert_eq!(nodes(&files, request).expect(request), expected, "{request}");
    };
    check("all", &["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"]);
    assert_eq!(choose(&files, &GpuRequest::All).expect("chosen").0.devices, 2);
    check("1", &["/dev/nvidiactl", "/dev/nvidia0"]);
    check("2", &["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"]);
    check("device=1", &["/dev/nvidiactl", "/dev/nvidia1"]);
    check("nvidia.com/gpu=0", &["/dev/nvidiactl", "/dev/nvidia0"]);
    check("lab.org/full=a,nvidia.com/gpu=1", &["/dev/full", "/dev/nvidiactl", "/dev/nvidia1"]);
    check("none", &[]);
    let error = nodes(&files, "3").expect_err("too many");
    assert_eq!(error.to_string(), "3 GPUs were asked for, and there are 2");
    let error = nodes(&files, "device=7").expect_err("absent");
    assert_eq!(error.to_string(), "no CDI file describes `nvidia.com/gpu=7`");
    let error = nodes(&files, "lab.org/full=b").expect_err("absent");
    let known = "nvidia.com/gpu=0 nvidia.com/gpu=1 nvidia.com/gpu=all lab.org/full=a";
    assert!(matches!(error, Error::NoDevice { known: found, .. } if found.join(" ") == known));
    // Without a file for graphics processors, their driver is asked.
    let lab = &files[1..];
    for request in ["all", "1", "device=0"] {
        let request: GpuRequest = request.parse().expect("a request");
        assert_eq!(choose(lab, &request), Ok((Chosen::default(), Some(request))));
    }
    for (request, expected) in
        [("nvidia.com/gpu=all", "all"), ("nvidia.com/gpu=1,nvidia.com/gpu=0", "device=1,0")]
    {
        let left = choose(lab, &request.parse().expect("a request")).expect("chosen").1;
        assert_eq!(left, Some(expected.parse().expect("a request")), "{request}");
    }
}

#[test]
fn the_later_folder_counts() {
    let other = LAB.replace("/dev/full", "/dev/zero");
    let mut files = files();
    files.push(parse("/var/run/cdi/lab.json", 1, &other).expect("sound"));
    assert_eq!(nodes(&files, "lab.org/full=a").expect("chosen"), ["/dev/zero"]);
    files[2].rank = 0;
    let error = nodes(&files, "lab.org/full=a").expect_err("twice");
    assert_eq!(
        error.to_string(),
        "/etc/cdi/lab.json and /var/run/cdi/lab.json both describe `lab.org/full=a`"
    );
}

#[test]
fn hooks_of_nvidia_are_known() {
    let files = files();
    let deeds: Vec<Deed> = files[0].edits.hooks.iter().map(Hook::deed).collect();
    let link = ("../libnvidia-allocator.so.1", "/usr/lib/x86_64-linux-gnu/gbm/nvidia-drm_gbm.so");
    assert_eq!(
        deeds,
        [
            Deed::Links(vec![(link.0.to_owned(), link.1.to_owned())]),
            Deed::Libraries(vec!["/usr/lib/x86_64-linux-gnu".to_owned(), "/usr/lib/other".to_owned()]),
        ]
    );
    let check = |path: &str, args: &[&str], expected: Deed| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let hook = Hook { hook_name: "createContainer".to_owned(), path: path.to_owned(), args };
        assert_eq!(hook.deed(), expected, "{}", hook.line());
    };
    let ctk = "/usr/bin/nvidia-ctk";
    let mode = Deed::Mode(0o755, vec!["/dev/dri".to_owned()]);
    check(ctk, &["nvidia-ctk", "hook", "chmod", "--mode", "755", "--path", "/dev/dri"], mode);
    check(ctk, &["nvidia-ctk", "hook", "disable-device-node-modification"], Deed::Nothing);
    check(ctk, &["nvidia-ctk", "hook", "chmod", "--mode", "u+x"], Deed::Unknown);
    check(ctk, &["nvidia-ctk", "hook", "create-symlinks", "--link", "a"], Deed::Unknown);
    check(ctk, &["nvidia-ctk", "hook", "enable-cuda-compat", "--host-driver-version=1"], Deed::Unknown);
    check(ctk, &[], Deed::Unknown);
    check("/opt/vendor/tool", &["tool", "update-ldcache"], Deed::Unknown);
}

#[test]
fn files_that_are_wrong_are_refused() {
    let check = |text: &str, expected: &str| {
        let error = parse("x.yaml", 0, text).expect_err(text);
        assert_eq!(error.to_string(), format!("x.yaml: {expected}"));
    };
    check("", "invalid type: null, expected struct Document");
    check("kind: a.b/c\n", "`cdiVersion: ` is none that ibid knows");
    check("cdiVersion: 7.0.0\n", "`cdiVersion: 7.0.0` is none that ibid knows");
    check("cdiVersion: 0.5.0\nkind: gpu\n", "`kind: gpu` is none of the form vendor.com/class");
    let with = |more: &str| format!("cdiVersion: 0.5.0\nkind: a.b/c\n{more}");
    check(&with("devices: [{name: ../x}]"), "`../x` is no name for a device");
    check(&with("devices: [{name: x}, {name: x}]"), "the device `x` is there twice");
    check(&with("containerEdits: {env: [X]}"), "`X` sets no variable: expected NAME=VALUE");
    for path in ["dev/x", "/a/../b", "/"] {
        let text = with(&format!("containerEdits: {{deviceNodes: [{{path: {path}}}]}}"));
        check(&text, &format!("`{path}` is no absolute path"));
    }
    check(&with("devices: [\n"), "line 4: while parsing a node, did not find expected node content");
}
