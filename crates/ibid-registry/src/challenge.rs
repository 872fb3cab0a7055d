//! `WWW-Authenticate`: how a registry wants to be told who asks (RFC 9110 § 11.6.1, and the token specification of the
//! distribution project).

/// A way to authenticate that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token, which the service at `realm` gives out.
    Bearer {
        /// Where tokens are.
        realm: String,
        /// Who they are for.
        service: Option<String>,
        /// What they must allow.
        scope: Option<String>,
    },
}

/// The first challenge that is known here; tokens before passwords.
pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for (scheme, parameters) in parse(header) {
            let parameter = |name: &str| {
                parameters
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = parameter("realm") {
                    let (service, scope) = (parameter("service"), parameter("scope"));
                    return Some(Challenge::Bearer { realm, service, scope });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// Schemes and their parameters. What is malformed ends the list.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len()));
        if word.is_empty() {
            break;
        }
        if let Some(value) = behind.trim_start().strip_prefix('=')
            && let Some((_, parameters)) = found.last_mut()
        {
            let Some((value, behind)) = read_value(value.trim_start()) else { break };
            parameters.push((word.to_owned(), value));
            rest = behind;
        } else if behind.trim_start().starts_with('=') {
            break;
        } else {
            found.push((word.to_owned(), Vec::new()));
            rest = behind;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// A token, or a string in quotes with `\` before what is meant as it is.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([' ', ',', '\t']).unwrap_or(text.len()));
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        let check = |headers: &[&str], expected: Option<Challenge>| {
            assert_eq!(choose(headers.iter().copied()), expected, "{headers:?}");
        };
        check(&["Basic realm=\"Registry\""], Some(Challenge::Basic));
        check(&["basic"], Some(Challenge::Basic));
        check(
            &["Bearer realm=\"https://a/token\",service=\"r\",scope=\"repository:x:pull,push\""],
            bearer("https://a/token", Some("r"), Some("repository:x:pull,push")),
        );
        check(&["Bearer realm=https://a/t, service=r"], bearer("https://a/t", Some("r"), None));
        check(&["Basic realm=\"x\", Bearer realm=\"y\""], bearer("y", None, None));
        check(&["Negotiate", "Bearer  realm = \"a\\\"b\""], bearer("a\"b", None, None));
        for none in
            ["", "Digest realm=\"x\"", "Bearer", "Bearer realm=\"open", "=,=", ",,", "Bearer service=x"]
        {
            check(&[none], None);
        }
    }
}
