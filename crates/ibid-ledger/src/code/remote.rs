//! Where a repository's commits come from, read from its settings (git-config(1), "Syntax").
//!
//! The file is read here, as asking `git` once more would cost as much as all else that is asked of it. So what other files that it
//! includes say of remotes is not seen.

/// The URL of the remote that `branch` follows, of `origin`, or of the only remote there is, in this order; without credentials.
pub(super) fn of_config(text: &[u8], branch: Option<&str>) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let mut remotes: Vec<(String, String)> = Vec::new();
    let mut followed = None;
    let mut section = (String::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header_of(header);
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value_of(value);
            match (section.0.as_str(), key.trim().to_ascii_lowercase().as_str()) {
                // A second URL is for pushes only.
                ("remote", "url") if !remotes.iter().any(|(name, _)| *name == section.1) => {
                    remotes.push((section.1.clone(), value));
                }
                ("branch", "remote") if branch == Some(&*section.1) => followed = Some(value),
                _ => {}
            }
        }
    }
    let named = |name: &str| remotes.iter().find(|(other, _)| other == name);
    let found = followed.as_deref().and_then(named).or_else(|| named("origin"));
    let only = || remotes.first().filter(|_| remotes.len() == 1);
    found.or_else(only).map(|(_, url)| without_credentials(url))
}

/// `remote "origin"]` as both of its words.
fn header_of(header: &str) -> (String, String) {
    let header = header.split(']').next().unwrap_or(header);
    match header.split_once('"') {
        Some((section, rest)) => {
            let name = rest.strip_suffix('"').unwrap_or(rest).replace("\\\"", "\"").replace("\\\\", "\\");
            (section.trim().to_ascii_lowercase(), name)
        }
        None => (header.trim().to_ascii_lowercase(), String::new()),
    }
}

/// A value without its quotes, and without a comment after it.
fn value_of(value: &str) -> String {
    let mut text = String::new();
    let mut is_quoted = false;
    let mut characters = value.trim().chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' => text.extend(characters.next()),
            '#' | ';' if !is_quoted => break,
            character => text.push(character),
        }
    }
    text.trim().to_owned()
}

/// A URL without what is nobody else's business. The user of `ssh` is part of the address; elsewhere it may be a token.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let is_ssh = matches!(scheme, "ssh" | "git+ssh" | "ssh+git");
    let user = user.filter(|_| is_ssh).and_then(|user| user.split(':').next());
    let path = if is_ssh { path } else { path.split(['?', '#']).next().unwrap_or(path) };
    match user {
        Some(user) => format!("{scheme}://{user}@{host}{path}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remote_is_the_one_that_is_followed() {
        let check = |text: &str, branch: Option<&str>, expected: Option<&str>| {
            assert_eq!(of_config(text.as_bytes(), branch).as_deref(), expected, "{text} {branch:?}");
        };
        let two = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://a.org/x.git\n\tfetch = +refs/*\n\
                   [Remote \"fork\"]\n\tURL = \"https://b.org/x.git\" ; mine\n\
                   [branch \"side\"]\n\tremote = fork\n[branch \"lost\"]\n\tremote = gone\n";
        check(two, None, Some("https://a.org/x.git"));
        check(two, Some("trunk"), Some("https://a.org/x.git"));
        check(two, Some("side"), Some("https://b.org/x.git"));
        check(two, Some("lost"), Some("https://a.org/x.git"));
        check("[remote \"only\"]\nurl=/srv/x.git\nurl=/srv/y.git", None, Some("/srv/x.git"));
        check("[remote \"a\"]\nurl=/a\n[remote \"b\"]\nurl=/b", None, None);
        check("", None, None);
        check("[remote \"a", Some("b"), None);
    }

    #[test]
    fn credentials_are_dropped() {
        let check = |url: &str, expected: &str| assert_eq!(without_credentials(url), expected);
        check("https://github.com/a/b.git", "https://github.com/a/b.git");
        check("https://me:secret@github.com/a/b.git", "https://github.com/a/b.git");
        check("https://token@github.com/a/b.git?access_token=secret#x", "https://github.com/a/b.git");
        check("https://me:se@cret@github.com/a", "https://github.com/a");
        check("https://me:secret@github.com", "https://github.com");
        check("ssh://git:secret@github.com:22/a/b.git", "ssh://git@github.com:22/a/b.git");
        check("git@github.com:a/b.git", "git@github.com:a/b.git");
        check("../sibling", "../sibling");
        check("file:///srv/a@b/c", "file:///srv/a@b/c");
    }
}
