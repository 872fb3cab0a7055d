//! An option of the command line that cannot be meant.

/// What is wrong with the value of an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option} {value}`: {problem}")]
pub struct InvalidOption {
    /// The option, with its dashes.
    pub option: &'static str,
    /// As it was given.
    pub value: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub mend: Option<String>,
}

impl InvalidOption {
    /// Says what is wrong.
    pub fn new(option: &'static str, value: &str, problem: impl Into<String>) -> Self {
        Self { option, value: value.to_owned(), problem: problem.into(), mend: None }
    }

    /// Says what to write instead.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}
