use ibid_testing::Place;

use super::*;

fn host(place: &Place) -> Host {
    Host { root: place.path().to_owned(), ..Host::default() }
}

fn library(place: &Place, path: &str, name: &str) {
    place.file(path, "");
    fs::write(place.path().join(path), shared_object::library(name)).expect("a file");
}

/// What is mounted, one line each: place in the container, and path on the host.
fn binds(place: &Place, found: &Found) -> Vec<String> {
    let root = place.path();
    let line = |bind: &Bind| {
        format!("{} {}", bind.container, bind.host.strip_prefix(root).expect("below").display())
    };
    found.lent.binds.iter().map(line).collect()
}

/// A driver with two devices, whose order on the bus is not that of their nodes.
fn driver(place: &Place) {
    place.file(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: gcc 12.2.0\n",
    );
    for (bus, minor, uuid) in [("0000:01:00.0", 1, "GPU-aa"), ("0000:41:00.0", 0, "GPU-bb")] {
        place.file(
            &format!("proc/driver/nvidia/gpus/{bus}/information"),
            &format!("Model: \t\t NVIDIA A100\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"),
        );
    }
    for node in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"] {
        place.file(&format!("dev/{node}"), "");
    }
    library(place, "usr/lib/x86_64-linux-gnu/libcuda.so.535.104.05", "libcuda.so.1");
    library(place, "opt/driver/libnvidia-ml.so.535.104.05", "libnvidia-ml.so.1");
    // Of another version, of GLVND, for another word size.
    library(place, "usr/lib/x86_64-linux-gnu/libcuda.so.525.1", "libcuda.so.1");
    library(place, "usr/lib/x86_64-linux-gnu/libGL.so.1.7.0", "libGL.so.1");
    place.file("usr/lib64/libnvidia-ml.so.535.104.05", "32 bits");
    let cache =
        linker_cache::cache(&["/opt/driver/libnvidia-ml.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"]);
    place.folder("etc");
    fs::write(place.path().join("etc/ld.so.cache"), cache).expect("a file");
}

#[test]
fn a_driver_is_found_as_it_is() {
    let place = Place::new();
    driver(&place);
    let host = host(&place);
    let found = host.find(&"1".parse().expect("a request")).expect("found");
    assert_eq!(
        binds(&place, &found),
        [
            "/dev/nvidiactl dev/nvidiactl",
            "/dev/nvidia-uvm dev/nvidia-uvm",
            "/dev/nvidia1 dev/nvidia1",
            "/run/ibid/gpus/libcuda.so usr/lib/x86_64-linux-gnu/libcuda.so.535.104.05",
            "/run/ibid/gpus/libcuda.so.1 usr/lib/x86_64-linux-gnu/libcuda.so.535.104.05",
            "/run/ibid/gpus/libcuda.so.535.104.05 usr/lib/x86_64-linux-gnu/libcuda.so.535.104.05",
            "/run/ibid/gpus/libnvidia-ml.so opt/driver/libnvidia-ml.so.535.104.05",
            "/run/ibid/gpus/libnvidia-ml.so.1 opt/driver/libnvidia-ml.so.535.104.05",
            "/run/ibid/gpus/libnvidia-ml.so.535.104.05 opt/driver/libnvidia-ml.so.535.104.05",
        ]
    );
    assert_eq!(found.lent.library_folders, ["/run/ibid/gpus"]);
    assert_eq!(found.words, "1 GPU of NVIDIA's driver 535.104.05, with 2 libraries");
    let nodes = |request: &str| -> Vec<String> {
        let found = host.find(&request.parse().expect("a request")).expect(request);
        let nodes = binds(&place, &found)
            .into_iter()
            .filter_map(|line| Some(line.strip_prefix("/dev/nvidia")?[..1].to_owned()));
        nodes.filter(|node| node.parse::<u32>().is_ok()).collect()
    };
    assert_eq!(nodes("all"), ["1", "0"]);
    assert_eq!(nodes("device=1"), ["0"]);
    assert_eq!(nodes("device=GPU-bb,0"), ["0", "1"]);
    let check = |request: &str, expected: &str| {
        assert_eq!(host.find(&request.parse().expect("a request")).expect_err(request).to_string(), expected);
    };
    check("3", "3 GPUs were asked for, and there are 2");
    check("device=7", "the NVIDIA driver has no GPU `7`: there are 0 (GPU-aa), 1 (GPU-bb)");
    check("lab.org/x=0", "no CDI file describes `lab.org/x=0`");
    assert_eq!(nodes("nvidia.com/gpu=1"), ["0"]);

    // Another driver than that of the libraries.
    place.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.1  x\n");
    let error = host.find(&GpuRequest::All).expect_err("no library").to_string();
    assert!(
        error.starts_with("the NVIDIA driver 550.1 is loaded, but no libcuda.so.550.1 is in /usr/lib/"),
        "{error}"
    );
    fs::remove_file(place.path().join("dev/nvidiactl")).expect("removed");
    check("all", "the NVIDIA driver 550.1 is loaded, but there is no /dev/nvidiactl");
}

#[test]
fn nothing_is_an_error_that_says_where_it_was_looked_for() {
    let place = Place::new();
    let error = host(&place).find(&GpuRequest::All).expect_err("nothing");
    assert_eq!(
        error.to_string(),
        "there is no GPU: no CDI file for nvidia.com/gpu or amd.com/gpu in /etc/cdi or /var/run/cdi, and no NVIDIA driver in /proc/driver/nvidia/version"
    );
    assert_eq!(host(&place).find(&GpuRequest::None).expect("nothing asked"), Found::default());
}

#[test]
fn a_file_counts_before_the_driver() {
    let place = Place::new();
    driver(&place);
    library(&place, "lib/libx.so.5", "libx.so.1");
    place.file("dev/full", "");
    place.file(
        "etc/cdi/x.yaml",
        "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes: [{path: /dev/nvidia0, hostPath: /dev/full}]\n\
         containerEdits:\n  env: [A=b=c]\n  additionalGids: [44]\n  intelRdt: {}\n\
         \x20 mounts: [{hostPath: /lib/libx.so.5, containerPath: /usr/lib/x/libx.so.5, options: [ro, bind]}]\n\
         \x20 hooks:\n\
         \x20 - {hookName: createContainer, path: /bin/nvidia-ctk, args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib/x]}\n\
         \x20 - {hookName: createContainer, path: /bin/nvidia-ctk, args: [nvidia-ctk, hook, create-symlinks, --link, 'more.so::/usr/lib/x/most.so', --link, '../x/libx.so.1::/usr/lib/x/more.so', --link, 'absent::/y/z']}\n\
         \x20 - {hookName: createContainer, path: /bin/other, args: [other, do]}\n",
    );
    let found = host(&place).find(&GpuRequest::All).expect("found");
    assert_eq!(
        binds(&place, &found),
        [
            "/usr/lib/x/libx.so.5 lib/libx.so.5",
            "/dev/nvidia0 dev/full",
            "/usr/lib/x/libx.so.1 lib/libx.so.5",
            "/run/ibid/gpus/libx.so.5 lib/libx.so.5",
            "/run/ibid/gpus/libx.so.1 lib/libx.so.5",
            "/usr/lib/x/more.so lib/libx.so.5",
            "/usr/lib/x/most.so lib/libx.so.5",
        ]
    );
    assert_eq!(found.lent.env, [("A".to_owned(), "b=c".to_owned())]);
    assert_eq!(found.lent.groups, [44]);
    assert_eq!(
        found.not_done,
        [
            "`intelRdt`, which ibid does not know",
            "the hook `/bin/other do`, which ibid does not know",
            "the link /y/z: nothing is mounted at absent",
        ]
    );
    // What is not there any more is said, not left out.
    fs::remove_file(place.path().join("lib/libx.so.5")).expect("removed");
    let error = host(&place).find(&GpuRequest::All).expect_err("stale");
    assert_eq!(error.to_string(), "/etc/cdi/x.yaml names /lib/libx.so.5, which is not there");
    place.file("etc/cdi/x.yaml", "kind: [");
    let error = host(&place).find(&GpuRequest::All).expect_err("broken");
    assert!(error.to_string().starts_with("/etc/cdi/x.yaml: line "), "{error}");
}
