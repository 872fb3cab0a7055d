//! The rules by name, what each finds, and why that matters. `docs/checks.md` says the same to people.

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "`Rule::finds` says what each is")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
    UnpinnedBaseImage,
    UnpinnedAptPackages,
    AptUpgrade,
    UnhashedPipPackages,
    PipTarget,
    UnpinnedCondaPackages,
    PipeToShell,
    UnverifiedDownload,
    UnpinnedGitSource,
    NondeterministicCommand,
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One of Docker's build checks, by the name under which Docker documents it.
    Docker,
    /// ibid's own: what keeps a build from giving the same bytes again.
    Reproducibility,
}

/// A rule's name, what it finds, and why that matters.
type Description = (&'static str, &'static str, &'static str);

impl Rule {
    /// All of them: Docker's in the order of its documentation, then ibid's own.
    pub const ALL: [Self; 32] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
        Self::UnpinnedBaseImage,
        Self::UnpinnedAptPackages,
        Self::AptUpgrade,
        Self::UnhashedPipPackages,
        Self::PipTarget,
        Self::UnpinnedCondaPackages,
        Self::PipeToShell,
        Self::UnverifiedDownload,
        Self::UnpinnedGitSource,
        Self::NondeterministicCommand,
    ];

    /// The rule of that name, in whichever case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name().eq_ignore_ascii_case(name))
    }

    /// Its name, as `# check=skip=` takes it.
    pub fn name(self) -> &'static str {
        self.description().0
    }

    /// What it finds.
    pub fn finds(self) -> &'static str {
        self.description().1
    }

    /// Why that matters.
    pub fn why(self) -> &'static str {
        self.description().2
    }

    /// Whose it is.
    pub fn origin(self) -> Origin {
        if self < Self::UnpinnedBaseImage { Origin::Docker } else { Origin::Reproducibility }
    }

    /// Whether it is only applied when `# check=experimental=` names it.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    fn description(self) -> Description {
        match self {
            Self::StageNameCasing => (
                "StageNameCasing",
                "a stage whose name is not in lower case",
                "names of stages mean the same in any case, and lower case tells them from keywords",
            ),
            Self::FromAsCasing => (
                "FromAsCasing",
                "`FROM` and `AS` of one line in different cases",
                "keywords of one line in one case are easier to read",
            ),
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "an empty line inside an instruction that continues over several lines",
                "Docker announces that it will refuse them",
            ),
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "an instruction in another case than most of the file's",
                "keywords of one file in one case are easier to read",
            ),
            Self::DuplicateStageName => (
                "DuplicateStageName",
                "two stages with the same name",
                "a name then means the one or the other, depending on where it stands",
            ),
            Self::ReservedStageName => (
                "ReservedStageName",
                "a stage named `scratch` or `context`",
                "`FROM scratch` and the name `context` have meanings of their own",
            ),
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "`CMD` or `ENTRYPOINT` as text for the shell",
                "the shell is then what signals reach, and the program does not end when it is asked to",
            ),
            Self::MaintainerDeprecated => {
                ("MaintainerDeprecated", "`MAINTAINER`", "a label says the same and can be looked up")
            }
            Self::UndefinedArgInFrom => (
                "UndefinedArgInFrom",
                "a variable in `FROM` that no `ARG` before the first `FROM` declares",
                "it is empty, whatever `--build-arg` says",
            ),
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "a relative `WORKDIR` with no absolute one before it",
                "where it leads depends on the base image",
            ),
            Self::UndefinedVar => (
                "UndefinedVar",
                "a variable that no `ARG` or `ENV` before it and no base image sets",
                "it is empty, which is rarely meant",
            ),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "several `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in one stage",
                "only the last one has an effect",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "`ENV NAME value` or `LABEL NAME value` without `=`",
                "the whole rest of the line is the value, and the form is deprecated",
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "a base image for another platform than the one that is built for",
                "its programs cannot be executed",
            ),
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "`FROM --platform=$TARGETPLATFORM`",
                "that is the platform anyway",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "an `ARG` or `ENV` whose name says that it holds a secret",
                "its value can be read in the image's configuration or history",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "a `FROM` that names no valid image unless build arguments are given",
                "the Dockerfile cannot be built by itself",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "`FROM --platform` with a fixed platform, in a stage whose name does not tell it",
                "the image can then be built for that platform only",
            ),
            Self::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "a `COPY` or `ADD` of a path that the ignore file drops",
                "the build cannot find it",
            ),
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "a comment right above `ARG` or `FROM` that does not start with the argument's or stage's name \
                 (experimental)",
                "tools show such comments as descriptions",
            ),
            Self::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "a protocol of `EXPOSE` that is not in lower case",
                "tools compare it with `tcp` and `udp` as they are written",
            ),
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "`EXPOSE` with an address or a port of the host",
                "only the container's port has an effect, and Docker announces that it will refuse the rest",
            ),
            Self::UnpinnedBaseImage => (
                "UnpinnedBaseImage",
                "a `FROM` or `COPY --from` of an image that neither a digest nor `ibid.lock` pins",
                "a tag names another image tomorrow",
            ),
            Self::UnpinnedAptPackages => (
                "UnpinnedAptPackages",
                "`apt-get install` of packages without versions",
                "it installs whatever is newest on the day of the build",
            ),
            Self::AptUpgrade => (
                "AptUpgrade",
                "`apt-get upgrade` and its kin",
                "it brings whatever is newest on the day of the build, over what the base image pins",
            ),
            Self::UnhashedPipPackages => (
                "UnhashedPipPackages",
                "`pip install` without hashes",
                "a version that is not pinned, of a package or of what it needs, is another one tomorrow, and \
                 nothing notices when a file was replaced",
            ),
            Self::PipTarget => (
                "PipTarget",
                "`pip install --target` with compiled files",
                "pip compiles in a temporary folder whose random name ends in every `.pyc`",
            ),
            Self::UnpinnedCondaPackages => (
                "UnpinnedCondaPackages",
                "`conda install` or `conda create` of packages without versions",
                "it installs whatever is newest on the day of the build",
            ),
            Self::PipeToShell => (
                "PipeToShell",
                "a download that is executed as it comes: `curl … | sh`",
                "nobody knows what ran: the next build may run something else, or half of it",
            ),
            Self::UnverifiedDownload => (
                "UnverifiedDownload",
                "a download in `RUN` or `ADD` whose content nothing checks, nor `ibid.lock` pins",
                "the next build may get other bytes, and nothing notices",
            ),
            Self::UnpinnedGitSource => (
                "UnpinnedGitSource",
                "a git repository that is cloned or added without naming a commit, which `ibid.lock` does not pin either",
                "branches and tags move",
            ),
            Self::NondeterministicCommand => (
                "NondeterministicCommand",
                "a command that gives something else each time, such as `date` or `uuidgen`",
                "two builds of the same files then differ",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_listed_once_in_order() {
        assert!(Rule::ALL.is_sorted());
        for rule in Rule::ALL {
            assert_eq!(Rule::parse(&rule.name().to_lowercase()), Some(rule));
            if rule != Rule::JsonArgsRecommended {
                assert_eq!(rule.name(), format!("{rule:?}"));
            }
        }
        let dockers = Rule::ALL.iter().filter(|rule| rule.origin() == Origin::Docker);
        assert_eq!(dockers.count(), 22);
    }
}
