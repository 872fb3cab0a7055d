//! The Dockerfile's language, as steps feel it: heredocs, arguments, directives, platforms, triggers.

mod support;

use support::{Project, can_build, text};

#[test]
fn heredocs_are_scripts_files_and_input() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nENV NAME=value\nWORKDIR /out\n\
         RUN <<EOF\nset -e\necho @UNIQUE@ > /dev/null\necho \"shell $NAME\" > plain\n# a comment of the shell\nfalse || echo \"second line\" >> plain\nEOF\n\
         RUN <<'EOF'\necho \"quoted $NAME \\$HOME\" > quoted\nEOF\n\
         RUN <<-EOF\n\tif true; then\n\t\techo tabs > tabs\n\tfi\n\tEOF\n\
         RUN <<SCRIPT\n#!/usr/bin/perl -l\nprint \"$0 \" . (-x $0) . \" $ENV{NAME}\";\nopen F, \">\", \"perl\"; print F \"line $_\" for 1..2\nSCRIPT\n\
         RUN <<-\"SCRIPT\"\n\t#!/bin/bash\n\techo \"bash ${BASH_VERSION:+yes} $NAME\" > bash\n\tSCRIPT\n\
         RUN perl <<EOF > piped\nprint \"input $NAME\\n\"\nEOF\n\
         RUN <<EOF bash -s arg\necho \"\\$BASH_VERSION\" | cut -c1 > first; echo \"\\$1\" >> first\nEOF\n\
         RUN <<ONE cat > one && <<-TWO cat > two && cat 3<<THREE <&3 > three\n\
         one $NAME\nONE\n\t\ttwo\n\tTWO\nthree\nTHREE\n\
         RUN cat <<EOF > hello.txt\n  hello ${NAME}\n\nEOF\n\
         USER 65534\nRUN <<EOF\n#!/bin/sh\nid -u > /tmp/id\n! echo x >> $0\nEOF\n\
         USER root\nSHELL [\"/bin/bash\", \"-e\", \"-c\"]\nRUN <<EOF\n[[ a == a ]] && echo ${NAME^^} > upper\nEOF\n\
         RUN test ! -e /dev/pipes; cat /tmp/id >> upper\n\
         ENTRYPOINT [\"tail\", \"-n\", \"+1\", \"plain\", \"quoted\", \"tabs\", \"perl\", \"bash\", \"piped\", \"first\", \"one\", \"two\", \"three\", \"hello.txt\", \"upper\"]\n",
    );
    project.check(&["build"], 0);
    let expected = "==> plain <==\nshell value\nsecond line\n\n==> quoted <==\nquoted value $HOME\n\n==> tabs <==\ntabs\n\n\
                    ==> perl <==\nline 1\nline 2\n\n==> bash <==\nbash yes value\n\n==> piped <==\ninput value\n\n\
                    ==> first <==\n5\narg\n\n==> one <==\none value\n\n==> two <==\ntwo\n\n==> three <==\nthree\n\n\
                    ==> hello.txt <==\n  hello value\n\n\n==> upper <==\nVALUE\n65534\n";
    assert_eq!(project.check(&["run", "--pegged"], 0), expected);
}

#[test]
fn a_failing_heredoc_is_shown_with_its_lines() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN <<EOF\n#!/no/such/interpreter\n@UNIQUE@\nEOF\nRUN true\n",
    );
    let output = project.ibid(&["build"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{narration}");
    assert!(
        narration.contains("Dockerfile:2") && narration.contains("#!/no/such/interpreter"),
        "{narration}"
    );
}

#[test]
fn predefined_arguments_are_seen_and_remembered_nowhere() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "# syntax=docker/dockerfile:1.7\n# check=skip=all\nFROM debian:bookworm-slim\n\
         RUN echo @UNIQUE@ $http_proxy $NO_PROXY ${ALL_PROXY-unset}\n\
         ARG FTP_PROXY=default\nRUN true @UNIQUE@; echo $FTP_PROXY > /declared\nENTRYPOINT [\"cat\", \"/declared\"]\n",
    );
    let build = |proxy: &str| {
        let (http, ftp) = (format!("http_proxy={proxy}"), format!("FTP_PROXY=ftp-{proxy}"));
        let args = ["build", "-v", "--no-host-trust", "--build-arg", &http, "--build-arg", "NO_PROXY=none"];
        let output = project.ibid(&[&args[..], &["--build-arg", &ftp]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let first = build("http://proxy-of-this-test:1");
    assert!(first.lines().any(|line| line.ends_with(" http://proxy-of-this-test:1 none unset")), "{first}");
    // The first line is noted, once; the second is another command's.
    assert_eq!(first.matches("the frontend `docker/dockerfile:1.7` is not used").count(), 1, "{first}");
    // Not declared: no part of the key. Declared: an argument like any other.
    let second = build("http://other:1");
    let cached = |narration: &str, part: &str| {
        narration.lines().any(|line| line.contains(part) && line.ends_with("cached"))
    };
    assert!(cached(&second, "$http_proxy") && !cached(&second, "> /declared"), "{second}");
    assert_eq!(project.check(&["run", "--pegged"], 0), "ftp-http://other:1\n");
    let archive = project.ibid(&["save", &project.name(), "-o", "-"]).stdout;
    assert!(!archive.windows(18).any(|window| window == b"proxy-of-this-test"), "in the archive");
}

#[test]
fn arguments_are_scoped_as_docker_scopes_them() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "ARG GLOBAL=global\nARG BASE=bookworm\nFROM debian:${BASE}-slim AS one\nARG INNER=inner\nENV KEPT=$INNER\n\
         RUN echo \"one ${GLOBAL-unset} $INNER ${GIVEN-unset}\" @UNIQUE@ > /one\n\
         FROM one AS two\nARG GLOBAL\nARG GIVEN=default\nRUN echo \"two $GLOBAL $INNER $KEPT $GIVEN $TARGETARCH\" > /two\n\
         FROM debian:bookworm-slim\nARG TARGETARCH\nCOPY --from=one /one /\nCOPY --from=two /two /\n\
         RUN echo \"three ${GLOBAL-unset} ${INNER-unset} ${KEPT-unset} $TARGETARCH\" | sed s/$TARGETARCH/own/ > /three\n\
         ENTRYPOINT [\"cat\", \"/one\", \"/two\", \"/three\"]\n",
    );
    project.check(&["build", "--build-arg", "GIVEN=given"], 0);
    let unique = project.place.path().display().to_string();
    assert_eq!(
        project.check(&["run", "--pegged"], 0).replace(&unique, "unique"),
        "one unset inner unset unique\ntwo global inner inner given \nthree unset unset unset own\n"
    );
}

#[test]
fn only_the_own_platform_can_be_built() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM --platform=$BUILDPLATFORM debian:bookworm-slim\nRUN true @UNIQUE@\n");
    let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let digest = project.check(&["build"], 0);
    assert_eq!(project.check(&["build", "--platform", own], 0), digest);
    let refused = |args: &[&str], parts: &[&str]| {
        let output = project.ibid(&[&["build"], args].concat());
        let narration = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{narration}");
        for part in parts {
            assert!(narration.contains(part), "{part} in {narration}");
        }
    };
    refused(&["--platform", "linux/riscv64"], &["not the platform of this machine", "hint:", own]);
    refused(&["--platform", "linux/"], &["it is no platform", own]);
    refused(&["--platform", "linux/amd64,linux/arm64"], &["one build makes one image"]);
    project.file("Dockerfile", "FROM --platform=linux/riscv64 debian:bookworm-slim\n");
    refused(&[], &["`--platform=linux/riscv64` is not that of this machine", "Dockerfile:1", "hint:"]);
}

#[test]
fn triggers_can_have_mounts() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS tools\nRUN echo tool @UNIQUE@ > /tool\n\
         FROM debian:bookworm-slim AS parent\nWORKDIR /w\n\
         ONBUILD RUN --mount=from=tools,source=/tool,target=tool --mount=source=word,target=word --mount=type=secret,id=key,env=KEY \
         --network=none cut -d' ' -f1 tool > seen && cat word >> seen && echo $KEY >> seen\n\
         FROM parent\nENTRYPOINT [\"cat\", \"seen\"]\n",
    );
    project.file("word", "word\n");
    project.file("key", "key");
    project.check(&["build", "--secret", "id=key,src=key"], 0);
    assert_eq!(project.check(&["run", "--pegged"], 0), "tool\nword\nkey\n");
}
