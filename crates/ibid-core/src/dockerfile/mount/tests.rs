use super::*;

/// Reads a mount in `/project`, with `$v` as `/var` and the stage `build`. What is mounted, with its source in front, or
/// what is wrong with it.
fn read(text: &str) -> Result<String, ErrorKind> {
    let words = MountWords::parse(text)?;
    let mut reading = Reading {
        expand: &mut |word| Ok(word.replace("$v", "/var")),
        source: &|from| match from {
            "build" => Ok(CopyFrom::Stage(0)),
            image => Ok(CopyFrom::Image(image.to_owned())),
        },
        folder: "/project",
        cache_namespace: "",
        agents: 2,
    };
    let mount = mount(&words, &mut reading)?;
    let source = mount.source().map(|(from, _)| format!("{from:?} ")).unwrap_or_default();
    Ok(format!("{source}{}", mount.options()))
}

#[test]
fn mounts_are_read() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text).map_err(|kind| kind.to_string()).as_deref(), Ok(expected), "{text}");
    }
    // Bind.
    check("target=/x", r#"Context type=bind,target="/x",source=".""#);
    check("type=bind,dst=x/../y/", r#"Context type=bind,target="/project/y",source=".""#);
    check(
        "destination=$v,source=/a/../b/,from=build,rw",
        r#"Stage(0) type=bind,target="/var",source="b",readwrite"#,
    );
    check("TARGET=/x,Type=BIND,src=../../a", r#"Context type=bind,target="/x",source="a""#);
    check("target=/x,readonly", r#"Context type=bind,target="/x",source=".""#);
    check("target=/x,ro=false", r#"Context type=bind,target="/x",source=".",readwrite"#);
    check("target=/x,rw,rw=0", r#"Context type=bind,target="/x",source=".""#);
    check("target=/x,from=debian:12", r#"Image("debian:12") type=bind,target="/x",source=".""#);
    check("target=/x,from=", r#"Context type=bind,target="/x",source=".""#);
    check("target=/old,target=/new", r#"Context type=bind,target="/new",source=".""#);
    check("\"source=a,b\",target=/x", r#"Context type=bind,target="/x",source="a,b""#);
    check("source=*.txt,target=/x", r#"Context type=bind,target="/x",source="*.txt""#);
    // Cache.
    let cache = |id, rest| format!(r#"type=cache,target="/project/c",id="{id}"{rest}"#);
    let plain = ",sharing=shared,uid=0,gid=0,mode=755";
    check("type=cache,target=/project/c", &cache("/project/c", plain));
    check("type=cache,target=./c", &cache("c", plain));
    check("target=c,type=cache,id=pip", &cache("pip", plain));
    check("type=cache,target=c,from=scratch", &cache("c", plain));
    check(
        "type=cache,target=c,sharing=LOCKED,uid=1000,gid=7,mode=0700",
        &cache("c", ",sharing=locked,uid=1000,gid=7,mode=700"),
    );
    check(
        "type=cache,target=c,ro,sharing=private",
        &cache("c", ",sharing=private,readonly,uid=0,gid=0,mode=755"),
    );
    check("type=cache,target=c,mode=1777", &cache("c", ",sharing=shared,uid=0,gid=0,mode=1777"));
    check(
        "type=cache,target=c,from=build,source=/root/.m2",
        &format!("Stage(0) {}", cache("c", r#",sharing=shared,source="root/.m2""#)),
    );
    // The others.
    check("type=tmpfs,target=/t", r#"type=tmpfs,target="/t""#);
    check("type=tmpfs,target=/t,size=1.5g,rw", r#"type=tmpfs,target="/t",size=1610612736"#);
    check("type=tmpfs,target=/t,size=0", r#"type=tmpfs,target="/t""#);
    let owned = ",uid=0,gid=0,mode=400";
    check("type=secret,id=a/key", &format!(r#"type=secret,id="a/key",target="/run/secrets/key"{owned}"#));
    check("type=secret,src=key", &format!(r#"type=secret,id="key",target="/run/secrets/key"{owned}"#));
    check("type=secret,dst=a/b", &format!(r#"type=secret,id="b",target="/project/a/b"{owned}"#));
    check("type=secret,id=k,env=K", &format!(r#"type=secret,id="k",env="K"{owned}"#));
    check("type=secret,id=k,env=", &format!(r#"type=secret,id="k",env="k"{owned}"#));
    check(
        "type=secret,id=k,env=K,target=/k,ro,uid=5,mode=0444,required",
        r#"type=secret,id="k",target="/k",env="K",required,uid=5,gid=0,mode=444"#,
    );
    check(
        "required=true,type=secret,id=k",
        &format!(r#"type=secret,id="k",target="/run/secrets/k",required{owned}"#),
    );
    check("type=ssh", r#"type=ssh,id="default",target="/run/buildkit/ssh_agent.2",uid=0,gid=0,mode=600"#);
    check(
        "type=ssh,id=work,target=s,required=1,gid=3,mode=660",
        r#"type=ssh,id="work",target="/project/s",required,uid=0,gid=3,mode=660"#,
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text).map_err(|kind| kind.to_string()).unwrap_err(), expected, "{text}");
    }
    check("", "a mount of type `bind` has no option ``");
    check("type=bnd,target=/x", "`bnd` is no type of mount");
    check("type=,target=/x", "`` is no type of mount");
    check("typ=bind,target=/x", "a mount of type `bind` has no option `typ`");
    check(" target=/x", "a mount of type `bind` has no option ` target`");
    check("target", "the option `target` of a mount has no value");
    check("type=secret,id=a,env", "the option `env` of a mount has no value");
    check(
        "target=/x,\"source=a",
        "the quotes in `--mount=target=/x,\"source=a` do not fit: a double quote is not closed",
    );
    for kind in ["bind", "cache", "tmpfs"] {
        check(&format!("type={kind}"), &format!("the `{kind}` mount has no target"));
        check(&format!("type={kind},target="), &format!("the `{kind}` mount has no target"));
    }
    for target in ["/", "..", "/x/../..", "//"] {
        check(&format!("target={target}"), "`/` cannot be the target of a mount");
        check(&format!("type=secret,id=k,target={target}"), "`/` cannot be the target of a mount");
    }
    for (kind, options) in [
        ("bind", "id sharing size required mode uid gid env"),
        ("cache", "size required env"),
        ("tmpfs", "from source id sharing required mode uid gid env"),
        ("secret", "from sharing size"),
        ("ssh", "from source sharing size env readonly"),
    ] {
        for option in options.split(' ') {
            let value = match option {
                "mode" | "uid" | "gid" | "size" => "0",
                "sharing" => "shared",
                "required" | "readonly" => "true",
                _ => "x",
            };
            let expected = format!("a mount of type `{kind}` has no option `{option}`");
            check(&format!("type={kind},target=/x,{option}={value}"), &expected);
        }
    }
    for (option, value) in [
        ("mode", "888"),
        ("mode", "17777"),
        ("mode", "+7"),
        ("mode", "rwx"),
        ("mode", ""),
        ("uid", "root"),
        ("uid", "-1"),
        ("gid", "4294967296"),
        ("gid", ""),
        ("sharing", "exclusive"),
        ("readonly", "yes"),
        ("rw", ""),
    ] {
        let expected = format!("a mount's `{option}` cannot be `{value}`");
        check(&format!("type=cache,target=/x,{option}={value}"), &expected);
    }
    for size in ["", "x", "-1", "1x", "1kk", "1e3", "99999999999999999999g", "1i", ".", "1 mb b"] {
        check(&format!("type=tmpfs,target=/x,size={size}"), &format!("a mount's `size` cannot be `{size}`"));
    }
    check("type=tmpfs,target=/x,rw=false", "a mount's `readwrite` cannot be `false`");
    check("type=secret,id=x,ro=false", "a mount's `readonly` cannot be `false`");
    check("type=secret,id=x,env=A=B", "a mount's `env` cannot be `A=B`");
    check("type=secret,id=x,source=y", "`id` and `source` of one mount exclude each other");
    check("type=secret", "the `secret` mount names no secret");
    check("type=secret,id=..", "the `secret` mount names no secret");
    check(
        "type=cache,target=/x,source=a",
        "the `source` of a cache mount is in its `from`, and there is none",
    );
    check("type=cache,target=/x,from=build,uid=1", "`from` and `uid` of one mount exclude each other");
    check("from=scratch,target=/x", "nothing can be taken from `scratch`: it is empty");
}

#[test]
fn sizes_are_those_of_docker() {
    let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text), expected, "{text:?}");
    check("64", Some(64));
    check("64b", Some(64));
    check("1k", Some(1024));
    check("1KB", Some(1024));
    check("1KiB", Some(1024));
    check("1 m", Some(1 << 20));
    check("0.5Mb", Some(1 << 19));
    check("2GiB", Some(2 << 30));
    check("1t", Some(1 << 40));
    check("1p", Some(1 << 50));
    check("1q", None);
}
