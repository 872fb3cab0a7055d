//! Each rule on Dockerfiles that break it and on Dockerfiles that do not. Docker's rules as its documentation describes
//! them.

use std::collections::{BTreeMap, BTreeSet};

use ibid_core::dockerfile::check::{self, Facts, Finding, Rule, Settings};
use ibid_core::dockerfile::{self, NamedContext, PlanOptions};
use ibid_core::dockerignore::Ignore;
use ibid_core::image::{ContainerConfig, ImageConfig, RootFs};

const IGNORE: &str = "data\n*.tmp\nlogs\n!logs/keep\n";

fn options(build_args: &[(&str, &str)]) -> PlanOptions {
    PlanOptions {
        build_args: build_args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        target: None,
        architecture: "amd64".to_owned(),
        contexts: [
            ("folder".to_owned(), NamedContext::Folder),
            ("named".to_owned(), NamedContext::Image("pinned".to_owned())),
        ]
        .into(),
    }
}

/// An image with a variable and a shell of its own, and one for another platform.
fn images() -> BTreeMap<String, ImageConfig> {
    let image = |architecture: &str, env: &[&str], shell: Option<&str>| ImageConfig {
        created: None,
        author: None,
        architecture: architecture.to_owned(),
        variant: None,
        os: "linux".to_owned(),
        config: ContainerConfig {
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            shell: shell.map(|shell| vec![shell.to_owned()]),
            ..ContainerConfig::default()
        },
        rootfs: RootFs::new(Vec::new()),
        history: Vec::new(),
    };
    [
        ("pinned", image("amd64", &["PATH=/bin", "HOME_OF_IT=/x"], None)),
        ("shelled", image("amd64", &[], Some("/bin/bash"))),
        ("arm", image("arm64", &[], None)),
    ]
    .map(|(name, image)| (name.to_owned(), image))
    .into()
}

#[track_caller]
fn findings(source: &str, build_args: &[(&str, &str)]) -> Vec<Finding> {
    let options = options(build_args);
    let dockerfile = dockerfile::parse(source.as_bytes()).expect(source);
    let settings =
        Settings::new(dockerfile.directives().check.as_deref(), &options.build_args).expect(source);
    let pinned: BTreeSet<String> = [
        "pinned",
        "shelled",
        "arm",
        "unknown",
        "https://example.org/pinned-1.zip",
        "https://example.org/pinned.git#refs/heads/main",
    ]
    .map(str::to_owned)
    .into();
    let ignore = Ignore::parse(IGNORE.as_bytes()).expect("rules");
    let facts = Facts { images: &images(), pinned: &pinned, ignore: &ignore, ignore_file: ".dockerignore" };
    check::check(source.as_bytes(), &dockerfile, &options, &settings, &facts).expect(source)
}

/// `Rule:line`, or `Rule:line text of message or fix`.
#[track_caller]
fn check_with(source: &str, build_args: &[(&str, &str)], expected: &[&str]) {
    let found = findings(source, build_args);
    let names: Vec<String> =
        found.iter().map(|finding| format!("{}:{}", finding.rule.name(), finding.lines.first)).collect();
    let wanted: Vec<&str> = expected.iter().map(|text| text.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(names, wanted, "{source}\n{found:#?}");
    for (finding, expected) in found.iter().zip(expected) {
        let text = expected.split_once(' ').map_or("", |(_, text)| text);
        assert!(finding.message.contains(text) || finding.fix.contains(text), "{text} in {finding:#?}");
        assert!(!finding.message.is_empty() && !finding.fix.is_empty());
    }
}

#[track_caller]
fn check(source: &str, expected: &[&str]) {
    check_with(source, &[], expected);
}

#[test]
fn casing() {
    check("FROM scratch AS Build\n", &["StageNameCasing:1 name it `build`"]);
    check("FROM scratch AS build\n", &[]);
    check("FROM scratch as a\nFROM scratch AS b\n", &["FromAsCasing:1 write `AS`"]);
    check("from scratch AS a\nfrom scratch as b\n", &["FromAsCasing:1 write `as`"]);
    check("FROM scratch As a\n", &["FromAsCasing:1"]);
    check("FROM scratch AS a\n", &[]);
    check("From scratch as a\nFROM scratch AS b\n", &["ConsistentInstructionCasing:1 write `FROM`"]);
    check("FROM scratch\ncopy a /\nCOPY b /\n", &["ConsistentInstructionCasing:2 write `COPY`"]);
    check("from scratch\nCOPY a /\ncopy b /\n", &["ConsistentInstructionCasing:2 write `copy`"]);
    check("from scratch\nCOPY a /\n", &["ConsistentInstructionCasing:1 write `FROM`"]);
    check("arg A=1\nFROM scratch\nCOPY a /\n", &["ConsistentInstructionCasing:1"]);
    check("from scratch\ncopy a /\n", &[]);
    check("FROM scratch\nRUN <<E\nenv\nE\nCOPY a /\n", &[]);
    check("FROM scratch\nONBUILD run a\n", &[]);
}

#[test]
fn stage_names() {
    check("FROM scratch AS b\nFROM scratch AS b\n", &["DuplicateStageName:2"]);
    check("FROM scratch AS b\nFROM scratch AS B\n", &["StageNameCasing:2", "DuplicateStageName:2"]);
    check("FROM scratch AS b1\nFROM scratch AS b2\n", &[]);
    check(
        "FROM scratch AS scratch\nFROM scratch AS context\n",
        &["ReservedStageName:1", "ReservedStageName:2"],
    );
    check("FROM scratch\nFROM scratch AS a\n", &[]);
}

#[test]
fn continuation() {
    check("FROM scratch\nCOPY a \\\n\n  /\nCOPY a \\\n/\n", &["NoEmptyContinuation:3"]);
    check("FROM scratch\nCOPY a \\\n# note\n  /\n\nCOPY a /\n", &[]);
    check("FROM scratch\nRUN <<E\na \\\n\nb\nE\n", &[]);
}

#[test]
fn commands_of_the_image() {
    check("FROM scratch\nCMD python train.py\n", &["JSONArgsRecommended:2 CMD [\"python\", \"train.py\"]"]);
    check("FROM scratch\nENTRYPOINT echo \"$HOME\"\n", &["JSONArgsRecommended:2 SHELL"]);
    check("FROM scratch\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\n", &[]);
    check("FROM scratch\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a\n", &[]);
    check("FROM scratch AS a\nSHELL [\"/bin/bash\", \"-c\"]\nFROM a\nENTRYPOINT a\n", &[]);
    check("FROM shelled\nCMD a\n", &[]);
    check("FROM scratch\nHEALTHCHECK CMD a\n", &[]);
    check(
        "FROM scratch\nENTRYPOINT [\"a\"]\nCMD [\"a\"]\nHEALTHCHECK CMD a\nENTRYPOINT [\"b\"]\nCMD [\"b\"]\n\
         HEALTHCHECK NONE\nCMD [\"c\"]\n",
        &[
            "MultipleInstructionsDisallowed:2 line 5",
            "MultipleInstructionsDisallowed:3 line 6",
            "MultipleInstructionsDisallowed:4 line 7",
            "MultipleInstructionsDisallowed:6 line 8",
        ],
    );
    check("FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n", &[]);
}

#[test]
fn old_forms() {
    check(
        "FROM scratch\nMAINTAINER a \"b\"\n",
        &["MaintainerDeprecated:2 LABEL org.opencontainers.image.authors=\"a \\\"b\\\"\""],
    );
    check("FROM scratch\nLABEL org.opencontainers.image.authors=a\n", &[]);
    check("FROM scratch\nENV a b\n", &["LegacyKeyValueFormat:2 ENV a=b"]);
    check("FROM scratch\nLABEL a b  c\n", &["LegacyKeyValueFormat:2 LABEL a=\"b  c\""]);
    check("FROM scratch\nENV a b=c\n", &["LegacyKeyValueFormat:2 ENV a=b=c"]);
    check("FROM scratch\nENV a=b c=d\nLABEL a=b\n", &[]);
}

#[test]
fn arguments_of_from() {
    check("ARG A=scratch\nFROM $A\n", &[]);
    check("FROM pinned$A\n", &["UndefinedArgInFrom:1 ARG A=value"]);
    check(
        "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} pinned\n",
        &["UndefinedArgInFrom:2 did you mean `MY_ARCH`"],
    );
    check("FROM --platform=$BULIDPLATFORM scratch\n", &["UndefinedArgInFrom:1 did you mean `BUILDPLATFORM`"]);
    check("FROM --platform=$BUILDPLATFORM scratch\n", &[]);
    check("FROM pinned${A:-}\n", &["UndefinedArgInFrom:1"]);
    check("ARG A\nFROM pinned${A}\n", &[]);
    check("ARG A=scratch\nFROM $A AS b\nARG C=1\nFROM pinned$C\n", &["UndefinedArgInFrom:4"]);

    check_with(
        "ARG V\nFROM unknown@sha256:$V\n",
        &[("V", &"a".repeat(64))],
        &["InvalidDefaultArgInFrom:2 ARG V"],
    );
    check_with("ARG IMAGE\nFROM $IMAGE\n", &[("IMAGE", "pinned")], &["InvalidDefaultArgInFrom:2"]);
    check(
        "ARG IMAGE=Not-One\nFROM $IMAGE\n",
        &["InvalidDefaultArgInFrom:2 `Not-One`", "UnpinnedBaseImage:2"],
    );
    check("ARG V\nFROM pinned$V\n", &[]);
    check("ARG V\nFROM pinned${V:-}\n", &[]);
    check("FROM scratch AS a\nFROM a\n", &[]);
    check("ARG S=a\nFROM scratch AS a\nFROM $S\n", &[]);
}

#[test]
fn platforms() {
    check("FROM --platform=$TARGETPLATFORM scratch\n", &["RedundantTargetPlatform:1"]);
    check("FROM --platform=${TARGETPLATFORM} scratch\n", &["RedundantTargetPlatform:1"]);
    check("FROM --platform=$BUILDPLATFORM scratch\n", &[]);
    check("FROM --platform=linux/amd64 scratch\n", &["FromPlatformFlagConstDisallowed:1"]);
    check("FROM --platform=linux/amd64 scratch AS build\n", &["FromPlatformFlagConstDisallowed:1"]);
    check("FROM --platform=linux/amd64 scratch AS build_amd64\n", &[]);
    check("FROM --platform=linux/amd64 scratch AS linux\n", &[]);
    check("FROM arm\n", &["InvalidBaseImagePlatform:1 linux/arm64, not for linux/amd64"]);
    check("ARG P=linux/arm64\nFROM --platform=$P arm\n", &[]);
    check("ARG P=linux/aarch64\nFROM --platform=$P pinned\n", &["InvalidBaseImagePlatform:2"]);
    check("FROM pinned\n", &[]);
}

#[test]
fn folders() {
    check("FROM scratch\nWORKDIR app/x\n", &["WorkdirRelativePath:2 WORKDIR /app/x"]);
    check("FROM scratch\nWORKDIR /app\nWORKDIR x\n", &[]);
    check("FROM scratch AS a\nWORKDIR /app\nFROM a\nWORKDIR x\n", &[]);
    check("FROM scratch\nENV A=/app\nWORKDIR $A\nWORKDIR x\n", &[]);
    check("FROM scratch AS a\nWORKDIR /app\nFROM scratch\nWORKDIR x\n", &["WorkdirRelativePath:4"]);
}

#[test]
fn variables() {
    check("FROM scratch\nCOPY $a /\n", &["UndefinedVar:2 `$a`"]);
    check("FROM scratch\nARG a\nCOPY x$a /\n", &[]);
    check("FROM scratch AS b\nARG a=x\nFROM b\nCOPY $a /\n", &[]);
    check("FROM scratch\nCOPY $a /\nARG a=x\n", &["UndefinedVar:2"]);
    check("ARG a=x\nFROM scratch\nCOPY $a /\n", &["UndefinedVar:3 repeat `ARG a`"]);
    check("FROM scratch\nENV PATH=$PAHT:/x\n", &["UndefinedVar:2 did you mean `$PATH`"]);
    check("FROM scratch\nENV PATH=$PATH:/x\n", &[]);
    check("FROM scratch\nENV a=1 b=$a\n", &["UndefinedVar:2"]);
    check("FROM scratch\nENV a=${b:-1} c=${b:+2} d='$b' e=\\$b\n", &[]);
    check("FROM scratch\nRUN echo $a\nCMD [\"$a\"]\n", &[]);
    check("FROM scratch\nCOPY <<E /x\n$a\nE\nCOPY <<'E' /y\n$a\nE\n", &["UndefinedVar:2"]);
    check(
        "FROM scratch\nLABEL a=$b\nUSER $c\nEXPOSE $d\nVOLUME $e\nSTOPSIGNAL SIG$f\nWORKDIR /$g\n",
        &[
            "UndefinedVar:2",
            "UndefinedVar:3",
            "UndefinedVar:4",
            "UndefinedVar:5",
            "UndefinedVar:6",
            "UndefinedVar:7",
        ],
    );
    check("FROM scratch\nADD --chown=$u x /$v\n", &["UndefinedVar:2 `$u`", "UndefinedVar:2 `$v`"]);
    // An image that is not here may set anything; a slip is a slip all the same.
    check("FROM pinned\nCOPY a $HOME_OF_IT\n", &[]);
    check("FROM pinned\nCOPY a $NOTHING\n", &["UndefinedVar:2"]);
    check("FROM unknown\nCOPY a $NOTHING\n", &[]);
    check(
        "FROM unknown\nARG DIR_ASSETS=x\nCOPY $DIR_ASSET /\n",
        &["UndefinedVar:3 did you mean `$DIR_ASSETS`"],
    );
}

#[test]
fn secrets() {
    for name in ["SECRET_PASSPHRASE", "password", "auth", "apikey", "git_key", "super_duper_secret_token"] {
        check(&format!("FROM scratch\nARG {name}\n"), &["SecretsUsedInArgOrEnv:2"]);
        check(&format!("FROM scratch\nENV x=y {name}=z\n"), &["SecretsUsedInArgOrEnv:2"]);
    }
    check("ARG TOKEN\nFROM scratch\n", &["SecretsUsedInArgOrEnv:1 `TOKEN`"]);
    for name in ["PUBLIC_KEY", "public_token", "MONKEY", "PASSWORD_FILE", "AUTH_MODULE_VERSION", "KEYS"] {
        check(&format!("FROM scratch\nARG {name}\n"), &[]);
    }
    check("FROM scratch\nLABEL password=x\n", &[]);
}

#[test]
fn what_the_context_lacks() {
    check("FROM scratch\nCOPY data /data\n", &["CopyIgnoredFile:2 .dockerignore:1 `data`"]);
    check(
        "FROM scratch\nADD ./data/x.npz x.tmp /\n",
        &["CopyIgnoredFile:2 data/x.npz", "CopyIgnoredFile:2 x.tmp"],
    );
    check("FROM scratch\nARG D=data\nCOPY $D/a /\n", &["CopyIgnoredFile:3"]);
    check("FROM scratch\nCOPY . /\nCOPY src logs logs/keep /\nCOPY *.tmp /\n", &[]);
    check("FROM scratch AS a\nFROM scratch\nCOPY --from=a data /\n", &[]);
    check("FROM scratch\nCOPY <<data /x\ny\ndata\n", &[]);
}

#[test]
fn ports() {
    check(
        "FROM scratch\nEXPOSE 80/TcP 8080/UDP 90/udp\n",
        &["ExposeProtoCasing:2 80/tcp", "ExposeProtoCasing:2 8080/udp"],
    );
    check(
        "FROM scratch\nEXPOSE 127.0.0.1:80:80 [::1]:8080:8080 5000:5000/tcp 8000\n",
        &[
            "ExposeInvalidFormat:2 EXPOSE 80",
            "ExposeInvalidFormat:2 EXPOSE 8080",
            "ExposeInvalidFormat:2 EXPOSE 5000/tcp",
        ],
    );
    check("FROM scratch\nARG P=80/tcp\nEXPOSE $P 8000-8010/udp\n", &[]);
}

#[test]
fn descriptions() {
    let experimental = "# check=experimental=InvalidDefinitionDescription\n";
    check("# note\nFROM scratch AS a\n", &[]);
    check(
        &format!("{experimental}# other\nARG V=1\n# BASE it\nFROM scratch AS base\n# bad\nARG A=1 B=2\n"),
        &[
            "InvalidDefinitionDescription:3 # V …",
            "InvalidDefinitionDescription:5 # base …",
            "InvalidDefinitionDescription:7",
        ],
    );
    check(
        &format!(
            "{experimental}# V is the version\nARG V=1\n\n# base it\n# is\nFROM scratch AS base\n# note\n\nARG A=1\n#\nARG B=1\n\
             # B two\nARG A=1 B=2\n# note\nCOPY a /\n# note\n#\nARG C=1\n"
        ),
        &[],
    );
    check(&format!("{experimental}FROM scratch AS base\n# note\nFROM scratch\n"), &[]);
}

#[test]
fn pinned_bases() {
    check("FROM debian\n", &["UnpinnedBaseImage:1 `debian@sha256:…`"]);
    check(
        "FROM debian:bookworm-slim\nCOPY --from=tool:1 a /\n",
        &["UnpinnedBaseImage:1", "UnpinnedBaseImage:2 tool:1"],
    );
    check("ARG V=12\nFROM debian:$V\n", &["UnpinnedBaseImage:2 debian:12"]);
    // What the command line names instead.
    check("FROM folder\nCOPY --from=named:latest /a /\n", &[]);
    let digest = "a".repeat(64);
    check(&format!("FROM debian:12@sha256:{digest}\n"), &[]);
    check(
        "FROM scratch AS a\nRUN --mount=from=tool,target=/t --mount=type=cache,target=$c a\n",
        &["UndefinedVar:2 `$c`", "UnpinnedBaseImage:2 tool"],
    );
    check(
        "FROM scratch AS a\nFROM scratch\nRUN --mount=from=a,target=/t --mount=from=pinned,target=/p --mount=target=/c a\n",
        &[],
    );
    check("FROM pinned AS a\nFROM a\nCOPY --from=a x /\nCOPY --from=0 x /\nCOPY --from=pinned x /\n", &[]);
}

#[test]
fn packages() {
    check(
        "FROM pinned\nRUN apt-get update && apt-get install -y --no-install-recommends python3 git=1:2.39\n",
        &["UnpinnedAptPackages:2 `python3`"],
    );
    check(
        "FROM pinned\nRUN DEBIAN_FRONTEND=noninteractive sudo apt install a b c d e f\n",
        &["UnpinnedAptPackages:2 `a`, `b`, `c`, `d` and 2 more"],
    );
    check("FROM pinned\nRUN [\"apt-get\", \"install\", \"a\"]\n", &["UnpinnedAptPackages:2"]);
    check("FROM pinned\nRUN <<E\napt-get install -y \\\n  a\nE\n", &["UnpinnedAptPackages:2"]);
    check("FROM pinned\nRUN <<E\n#!/usr/bin/env bash\napt-get install a\nE\n", &["UnpinnedAptPackages:2"]);
    check("FROM pinned\nRUN sh -c 'apt-get install a'\n", &["UnpinnedAptPackages:2"]);
    check(
        "FROM pinned\nRUN apt-get install -y -t bookworm a=1 /tmp/b.deb ./c.deb $MORE \"d=$V\" $(cat list)\nRUN apt-get remove e && echo apt-get install f\n\
         RUN apt-get update # apt-get install g\nRUN <<E\n#!/usr/bin/python3\napt-get install h\nE\n",
        &[],
    );
    check("FROM pinned\nRUN apt-get update; apt-get -y dist-upgrade\n", &["AptUpgrade:2 dist-upgrade"]);
    check("FROM pinned\nRUN apt-get update\n", &[]);

    check("FROM pinned\nRUN pip install numpy==1.26.4\n", &["UnhashedPipPackages:2"]);
    check(
        "FROM pinned\nRUN python3 -m pip install --no-cache-dir -r requirements.txt\n",
        &["UnhashedPipPackages:2"],
    );
    check("FROM pinned\nRUN pip3.11 --no-cache-dir install .\n", &["UnhashedPipPackages:2"]);
    check("FROM pinned\nRUN uv pip install numpy\n", &["UnhashedPipPackages:2"]);
    check(
        "FROM pinned\nRUN pip install --require-hashes -r requirements.txt\nRUN pip install --no-deps . ./a.whl\n\
         RUN pip install --no-index --find-links=/wheels numpy\nRUN PIP_REQUIRE_HASHES=1 pip install -r a\nRUN pip list && pip --version\n\
         RUN pipx install a; pip install --help\n",
        &[],
    );
    check("FROM pinned\nENV PIP_REQUIRE_HASHES=1\nRUN pip install -r requirements.txt\n", &[]);
    check("FROM pinned\nRUN pip install --no-deps -r a.txt\n", &["UnhashedPipPackages:2"]);
    check("FROM pinned\nRUN pip install --require-hashes -r a --target /x\n", &["PipTarget:2 --no-compile"]);
    check("FROM pinned\nRUN pip install --require-hashes -r a --target=/x --no-compile\n", &[]);

    check(
        "FROM pinned\nRUN conda install -y -n base -c conda-forge numpy python=3.11\n",
        &["UnpinnedCondaPackages:2 `numpy`"],
    );
    check(
        "FROM pinned\nRUN micromamba create -n x --file lock.txt && conda install python=3.11 && conda clean --all\n",
        &[],
    );
}

#[test]
fn downloads() {
    check(
        "FROM pinned\nRUN curl -fsSL https://example.org/x.sh | sh\n",
        &["PipeToShell:2 `sh` executes what `curl` fetches"],
    );
    check(
        "FROM pinned\nRUN wget -qO- https://example.org/x | tee y | sudo bash -s -- --yes\n",
        &["PipeToShell:2"],
    );
    check("FROM pinned\nRUN curl https://example.org/x.py | python3 -\n", &["PipeToShell:2"]);
    check("FROM pinned\nRUN bash -c \"$(curl -fsSL https://example.org/x.sh)\"\n", &["PipeToShell:2"]);
    check("FROM pinned\nRUN bash <(curl -s https://example.org/x.sh)\n", &["PipeToShell:2"]);
    check("FROM pinned\nRUN eval `curl -s https://example.org/x.sh`\n", &["PipeToShell:2"]);
    check(
        "FROM pinned\nRUN curl https://example.org/x | python3 -c 'import sys'\n",
        &["UnverifiedDownload:2"],
    );
    check(
        "FROM pinned\nRUN curl https://example.org/x | tar xz && sh install.sh\n",
        &["UnverifiedDownload:2"],
    );
    check("FROM pinned\nRUN wget https://example.org/a.tar.gz\n", &["UnverifiedDownload:2"]);
    check(
        "FROM pinned\nRUN curl -O https://example.org/a && echo \"00  a\" | sha256sum -c\nRUN curl --version; curl localhost:80/x\n\
         RUN apt-get purge curl | sh\nRUN curl -sI https://example.org\n",
        &[],
    );
    check("FROM pinned\nADD https://example.org/a.tar.gz /\n", &["UnverifiedDownload:2 --checksum"]);
    check("FROM pinned\nADD a.tar.gz /\n", &[]);
    // What the lock pins, whatever the variables of the Dockerfile.
    check(
        "FROM pinned\nARG V=1\nADD https://me:secret@example.org/pinned-$V.zip https://example.org/pinned.git?branch=main /\n",
        &[],
    );
    check("FROM pinned\nARG V=2\nADD https://example.org/pinned-$V.zip /\n", &["UnverifiedDownload:3"]);
    check("FROM pinned\nADD https://example.org/a.git?commit=0123 /\n", &[]);
    check("FROM pinned\nADD https://example.org/a.git /\n", &["UnpinnedGitSource:2"]);
    check("FROM pinned\nADD git@example.org:a.git#main:dir /\n", &["UnpinnedGitSource:2"]);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    check(&format!("FROM pinned\nADD git@example.org:a.git#{commit}:dir /\n"), &[]);
    check("FROM pinned\nRUN git clone --depth 1 -b v1 https://example.org/a\n", &["UnpinnedGitSource:2"]);
    check(&format!("FROM pinned\nRUN git clone https://example.org/a && git -C a checkout {commit}\n"), &[]);
    check(
        "FROM pinned\nARG C\nRUN git clone https://example.org/a && cd a && git checkout $C\nRUN git clone /src/a b\n",
        &[],
    );
}

#[test]
fn what_differs_each_time() {
    check("FROM pinned\nRUN date > /built\n", &["NondeterministicCommand:2 SOURCE_DATE_EPOCH"]);
    check(
        "FROM pinned\nRUN echo \"built $(date -u +%F)\" > /built && uuidgen > /id\n",
        &["NondeterministicCommand:2", "NondeterministicCommand:2"],
    );
    check(
        "FROM pinned\nRUN echo $RANDOM; head -c 8 /dev/urandom; ssh-keygen -A; shuf a\n",
        &[
            "NondeterministicCommand:2",
            "NondeterministicCommand:2",
            "NondeterministicCommand:2",
            "NondeterministicCommand:2",
        ],
    );
    check(
        "FROM pinned\nRUN date --date=@$SOURCE_DATE_EPOCH; echo date; ./date.sh; shuf --random-source=a b\n",
        &[],
    );
}

#[test]
fn rules_can_be_skipped() {
    let source = "FROM scratch as a\ncopy data /\nCOPY x /\n";
    check(source, &["FromAsCasing:1", "ConsistentInstructionCasing:2", "CopyIgnoredFile:2"]);
    check(&format!("# check=skip=all\n{source}"), &[]);
    check(
        &format!("#check=skip=FromAsCasing, copyignoredfile;error=true\n{source}"),
        &["ConsistentInstructionCasing:3"],
    );
    check_with(
        &format!("# check=skip=all\n{source}"),
        &[("BUILDKIT_DOCKERFILE_CHECK", "skip=CopyIgnoredFile,FromAsCasing")],
        &["ConsistentInstructionCasing:3"],
    );
    check(
        "FROM scratch\n# check=skip=CopyIgnoredFile // it is made before\nCOPY data /\nCOPY data /\n# check=skip=all\nMAINTAINER a\n",
        &["CopyIgnoredFile:4"],
    );
}

#[test]
fn findings_are_sorted_and_stages_that_nothing_needs_are_looked_at() {
    check(
        "FROM scratch AS a\nCOPY $a /\nFROM scratch\nMAINTAINER x\nRUN date\ncopy $b /\n",
        &[
            "UndefinedVar:2",
            "MaintainerDeprecated:4",
            "NondeterministicCommand:5",
            "ConsistentInstructionCasing:6",
            "UndefinedVar:6",
        ],
    );
}

#[test]
fn images_are_named() {
    let images = |source: &str, build_args: &[(&str, &str)]| {
        let dockerfile = dockerfile::parse(source.as_bytes()).expect(source);
        check::images(&dockerfile, &options(build_args)).into_iter().collect::<Vec<_>>()
    };
    let source = "ARG V=1\nFROM a:$V AS s\nFROM s\nFROM scratch\nCOPY --from=s x /\nCOPY --from=b x /\nCOPY --from=0 x /\nRUN --mount=from=c,target=/t a\nFROM $X\n";
    assert_eq!(images(source, &[]), ["a:1", "b", "c"]);
    assert_eq!(images(source, &[("V", "2")]), ["a:2", "b", "c"]);
}

/// `docs/checks.md` has a row for each rule that says what the code says.
#[test]
fn the_documentation_lists_every_rule() {
    let documentation = include_str!("../../../docs/checks.md");
    let rows: Vec<&str> = documentation.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = Rule::ALL
        .iter()
        .map(|rule| format!("| `{}` | {} | {} |", rule.name(), rule.finds(), rule.why()))
        .collect();
    assert_eq!(rows, expected);
}

/// What a rule costs does not grow with the square of the file.
#[test]
fn large_files_end() {
    const COUNT: usize = 20_000;
    let numbered = |line: fn(usize) -> String| (0..COUNT).map(line).collect::<String>();
    for source in [
        format!("FROM scratch\n{}", numbered(|n| format!("ENV VARIABLE{n} $VARIALBE{n}\n"))),
        format!("FROM scratch\n{}", "CMD a\n".repeat(COUNT)),
        format!("FROM scratch\n{}", "copy $a /\n".repeat(COUNT)),
        format!("FROM scratch\nRUN {}\n", "date; ".repeat(COUNT * 10)),
        format!("FROM scratch\nRUN curl https://a/b {}\n", "| tee ".repeat(COUNT * 10)),
        format!("FROM scratch\nRUN {}\n", "git clone https://a; ".repeat(COUNT)),
        format!("FROM scratch\nRUN {}\n", "curl https://a | sh; ".repeat(COUNT)),
        format!("FROM scratch\n{}MAINTAINER a\n", "# note\n".repeat(COUNT * 10)),
        format!("FROM scratch\nRUN a \\\n{} b\n", "\n".repeat(COUNT * 10)),
        numbered(|n| format!("FROM unpinned{n} AS s{n}\n")),
        format!(
            "FROM scratch AS s0\n{}",
            numbered(|n| format!("FROM s{n} AS s{}\nARG a{n}\n", n + 1))
                .lines()
                .take(4000)
                .collect::<Vec<_>>()
                .join("\n")
        ),
    ] {
        findings(&source, &[]);
    }
}
