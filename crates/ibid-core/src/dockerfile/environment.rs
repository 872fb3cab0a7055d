//! Variables in order of first appearance, found by name in constant time.

use std::collections::HashMap;

/// Names and values; each name once, where it first appeared.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    entries: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Environment {
    /// From the `NAME=value` entries of an image configuration. The last value of a name counts.
    pub(super) fn from_config(entries: &[String]) -> Self {
        let mut environment = Self::default();
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            environment.set(name, value);
        }
        environment
    }

    /// The `NAME=value` entries of an image configuration.
    pub(super) fn to_config(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|&place| self.entries[place].1.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(&place) => value.clone_into(&mut self.entries[place].1),
            None => {
                self.places.insert(name.to_owned(), self.entries.len());
                self.entries.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Bytes of all names and values.
    pub(super) fn size(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}
