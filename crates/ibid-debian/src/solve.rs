//! Which packages make the base: those that every system has, those asked for, and what they depend on.
//!
//! The choice depends on nothing but the index and the request, so it is the same everywhere. Recommendations
//! are not followed. Of alternatives the first that fits is taken, and only after everything without
//! alternatives has been settled, so that a package chosen anyway satisfies them.

use std::collections::{BTreeMap, VecDeque};

use crate::error::Error;
use crate::index::{Index, Package, PackageId};
use crate::relation::{Term, alternatives, groups, terms};

/// An alternative to prefer wherever it stands: root file systems are laid out with a merged `/usr` from the
/// start, so the package that states this is enough, and the one that would convert to it is not needed.
const PREFERRED: &str = "usr-is-merged";

struct Solver<'a> {
    index: &'a Index,
    architecture: &'a str,
    suite: &'a str,
    chosen: BTreeMap<&'a str, PackageId>,
    /// What chosen packages exclude, by the name that they exclude.
    exclusions: BTreeMap<&'a str, Vec<Exclusion<'a>>>,
    /// Groups with one possible answer, then those with several.
    firm: VecDeque<(PackageId, &'a str)>,
    open: VecDeque<(PackageId, &'a str)>,
}

/// A relation by which a package keeps another out.
#[derive(Clone, Copy)]
struct Exclusion<'a> {
    judge: PackageId,
    field: &'static str,
    term: Term<'a>,
}

/// Chooses packages. `asked` holds `name` or `name=version`. The answer is sorted by name.
pub(crate) fn solve(
    index: &Index,
    architecture: &str,
    suite: &str,
    asked: &[String],
) -> Result<Vec<PackageId>, Error> {
    let mut solver = Solver {
        index,
        architecture,
        suite,
        chosen: BTreeMap::new(),
        exclusions: BTreeMap::new(),
        firm: VecDeque::new(),
        open: VecDeque::new(),
    };
    for request in asked {
        let package = solver.requested(request)?;
        if let Some(&other) = solver.chosen.get(package.name())
            && other != package.id
        {
            return Err(Error::UnknownVersion {
                name: package.name().to_owned(),
                version: package.version().to_owned(),
                suite: suite.to_owned(),
                available: vec![format!("{}, which is asked for too", index.package(other).version())],
            });
        }
        solver.choose(package);
    }
    for package in index.newest().filter(Package::is_base) {
        if !solver.chosen.contains_key(package.name()) {
            solver.choose(package);
        }
    }
    loop {
        if let Some((id, group)) = solver.firm.pop_front() {
            solver.satisfy(id, group)?;
        } else if let Some((id, group)) = solver.open.pop_front() {
            solver.satisfy(id, group)?;
        } else {
            break;
        }
    }
    solver.check_conflicts()?;
    Ok(solver.chosen.into_values().collect())
}

impl<'a> Solver<'a> {
    fn requested(&self, request: &str) -> Result<Package<'a>, Error> {
        let (name, version) = match request.split_once('=') {
            Some((name, version)) => (name.trim(), Some(version.trim())),
            None => (request.trim(), None),
        };
        let mut versions = self.index.versions(name).peekable();
        if versions.peek().is_none() {
            let mut providers: Vec<Package<'a>> =
                self.index.providers(name).map(|(package, _)| package).collect();
            providers.dedup_by_key(|package| package.name());
            return match providers.as_slice() {
                [] => Err(Error::UnknownPackage {
                    name: name.to_owned(),
                    suite: self.suite.to_owned(),
                    nearest: self.nearest(name),
                }),
                [only] if version.is_none() => Ok(*only),
                several => Err(Error::VirtualPackage {
                    name: name.to_owned(),
                    providers: several.iter().map(|package| package.name().to_owned()).collect(),
                }),
            };
        }
        let Some(wanted) = version else {
            return Ok(versions.next().expect("just peeked at"));
        };
        let mut available = Vec::new();
        for package in versions {
            if package.version() == wanted {
                return Ok(package);
            }
            available.push(package.version().to_owned());
        }
        available.dedup();
        Err(Error::UnknownVersion {
            name: name.to_owned(),
            version: wanted.to_owned(),
            suite: self.suite.to_owned(),
            available,
        })
    }

    fn nearest(&self, name: &str) -> Option<String> {
        self.index
            .newest()
            .map(|package| (strsim::jaro_winkler(name, package.name()), package.name()))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|left, right| left.0.total_cmp(&right.0).then_with(|| right.1.cmp(left.1)))
            .map(|(_, name)| name.to_owned())
    }

    fn choose(&mut self, package: Package<'a>) {
        if self.chosen.insert(package.name(), package.id).is_some() {
            return;
        }
        for exclusion in exclusions(&package) {
            self.exclusions.entry(exclusion.term.name).or_default().push(exclusion);
        }
        for group in groups(package.pre_depends()).chain(groups(package.depends())) {
            let mut alternatives = alternatives(group);
            let is_firm = match (alternatives.next(), alternatives.next()) {
                (Some(only), None) => self.index.versions(only.name).next().is_some(),
                _ => false,
            };
            if is_firm { &mut self.firm } else { &mut self.open }.push_back((package.id, group));
        }
    }

    /// Makes sure that a chosen package satisfies a group of alternatives.
    fn satisfy(&mut self, id: PackageId, group: &'a str) -> Result<(), Error> {
        if alternatives(group).any(|term| self.is_satisfied(&term)) {
            return Ok(());
        }
        let mut reasons = Vec::new();
        let mut terms: Vec<Term<'a>> = alternatives(group).collect();
        terms.sort_by_key(|term| term.name != PREFERRED);
        for term in terms {
            if !term.admits_architecture(self.architecture) {
                reasons.push(format!("{} is of another architecture", term.name));
                continue;
            }
            let mut real =
                self.index.versions(term.name).filter(|package| term.admits(package.version())).peekable();
            let mut provided: Vec<Package<'a>> = self
                .index
                .providers(term.name)
                .filter(|(_, version)| term.admits_provided(*version))
                .map(|(package, _)| package)
                .collect();
            provided.sort_by_key(|package| !package.is_base());
            if real.peek().is_none() && provided.is_empty() {
                reasons.push(match self.index.versions(term.name).next() {
                    Some(newest) => format!("{} is there only up to version {}", term.name, newest.version()),
                    None => format!("no package is or provides {}", term.name),
                });
                continue;
            }
            for candidate in real.chain(provided) {
                if let Some(&other) = self.chosen.get(candidate.name()) {
                    reasons.push(format!(
                        "{} is already chosen in version {}",
                        candidate.name(),
                        self.index.package(other).version()
                    ));
                } else if let Some(other) = self
                    .excluding(&candidate)
                    .map(|exclusion| exclusion.judge)
                    .or_else(|| self.excluded_by(&candidate))
                {
                    reasons.push(format!(
                        "{} excludes {}",
                        candidate.name(),
                        self.index.package(other).name()
                    ));
                } else {
                    self.choose(candidate);
                    return Ok(());
                }
            }
        }
        let package = self.index.package(id);
        reasons.dedup();
        Err(Error::Unsatisfied {
            package: package.name().to_owned(),
            version: package.version().to_owned(),
            dependency: group.to_owned(),
            reason: if reasons.is_empty() {
                "cannot be understood".to_owned()
            } else {
                format!("cannot be satisfied: {}", reasons.join("; "))
            },
        })
    }

    fn is_satisfied(&self, term: &Term<'_>) -> bool {
        if !term.admits_architecture(self.architecture) {
            return false;
        }
        let real =
            self.chosen.get(term.name).is_some_and(|&id| term.admits(self.index.package(id).version()));
        real || self.index.providers(term.name).any(|(package, version)| {
            term.admits_provided(version) && self.chosen.get(package.name()) == Some(&package.id)
        })
    }

    /// What keeps a package out.
    fn excluding(&self, package: &Package<'a>) -> Option<Exclusion<'a>> {
        let by_name = self.exclusions.get(package.name()).into_iter().flatten();
        let by_name = by_name.filter(|exclusion| exclusion.term.admits(package.version()));
        let by_provision = terms(package.provides()).flat_map(|provided| {
            let version = provided.version.map(|(_, version)| version);
            let exclusions = self.exclusions.get(provided.name).into_iter().flatten();
            exclusions.filter(move |exclusion| exclusion.term.admits_provided(version))
        });
        // A package never excludes itself, whatever it provides.
        let is_other =
            |exclusion: &&Exclusion<'a>| self.index.package(exclusion.judge).name() != package.name();
        by_name.chain(by_provision).find(is_other).copied()
    }

    /// A chosen package that a candidate keeps out.
    fn excluded_by(&self, candidate: &Package<'a>) -> Option<PackageId> {
        exclusions(candidate).find_map(|Exclusion { term, .. }| {
            let by_name =
                self.chosen.get(term.name).filter(|&&id| term.admits(self.index.package(id).version()));
            let mut by_provision = self
                .index
                .providers(term.name)
                .filter(|(package, version)| {
                    term.admits_provided(*version) && self.chosen.get(package.name()) == Some(&package.id)
                })
                .map(|(package, _)| package.id);
            by_name.copied().or_else(|| by_provision.next())
        })
    }

    fn check_conflicts(&self) -> Result<(), Error> {
        for package in self.chosen.values().map(|&id| self.index.package(id)) {
            if let Some(Exclusion { judge, field, term }) = self.excluding(&package) {
                let judge = self.index.package(judge);
                return Err(Error::Conflict {
                    package: format!("{} {}", judge.name(), judge.version()),
                    other: format!("{} {}", package.name(), package.version()),
                    field,
                    relation: match term.version {
                        Some((operator, version)) => {
                            format!("{} ({} {version})", term.name, symbol(operator))
                        }
                        None => term.name.to_owned(),
                    },
                });
            }
        }
        Ok(())
    }
}

/// What a package excludes.
fn exclusions<'a>(judge: &Package<'a>) -> impl Iterator<Item = Exclusion<'a>> + use<'a> {
    let id = judge.id;
    [("Conflicts", judge.conflicts()), ("Breaks", judge.breaks())].into_iter().flat_map(
        move |(field, relations)| terms(relations).map(move |term| Exclusion { judge: id, field, term }),
    )
}

fn symbol(operator: crate::relation::Operator) -> &'static str {
    use crate::relation::Operator;
    match operator {
        Operator::Earlier => "<<",
        Operator::AtMost => "<=",
        Operator::Exactly => "=",
        Operator::AtLeast => ">=",
        Operator::Later => ">>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stanzas in short: `name version` and fields in between semicolons.
    fn index(packages: &[&str]) -> Index {
        let mut index = Index::default();
        for package in packages {
            let mut parts = package.split(';').map(str::trim);
            let (name, version) =
                parts.next().and_then(|head| head.split_once(' ')).expect("name and version");
            let fields: String = parts.map(|field| format!("{field}\n")).collect();
            let text = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {}\n{fields}",
                "0".repeat(64)
            );
            index.add(text.as_bytes(), "amd64", 0).expect("index is read");
        }
        index.finish();
        index
    }

    fn solve_names(packages: &[&str], asked: &[&str]) -> Result<Vec<String>, String> {
        let index = index(packages);
        let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
        let ids = solve(&index, "amd64", "s", &asked).map_err(|error| error.to_string())?;
        Ok(ids
            .into_iter()
            .map(|id| {
                let package = index.package(id);
                format!("{} {}", package.name(), package.version())
            })
            .collect())
    }

    fn check(packages: &[&str], asked: &[&str], expected: &[&str]) {
        assert_eq!(solve_names(packages, asked).expect("solves"), expected, "{packages:?} {asked:?}");
    }

    fn check_fails(packages: &[&str], asked: &[&str], expected: &str) {
        let error = solve_names(packages, asked).expect_err("cannot be solved");
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn base_packages_and_dependencies_are_chosen() {
        check(
            &[
                "base 1; Essential: yes; Pre-Depends: libc (>= 2)",
                "need 1; Priority: required",
                "libc 2",
                "libc 3",
                "other 1; Recommends: more",
                "more 1",
                "unused 1; Priority: optional",
            ],
            &["other"],
            &["base 1", "libc 3", "need 1", "other 1"],
        );
    }

    #[test]
    fn alternatives_prefer_what_is_chosen_anyway() {
        check(&["a 1; Depends: x | y, z", "x 1", "y 1", "z 1; Depends: y"], &["a"], &["a 1", "y 1", "z 1"]);
        check(&["a 1; Depends: x | y", "x 1", "y 1"], &["a"], &["a 1", "x 1"]);
        check(&["a 1; Depends: gone | y", "y 1"], &["a"], &["a 1", "y 1"]);
        check(
            &["a 1; Depends: usrmerge | usr-is-merged", "usrmerge 1", "usr-is-merged 1"],
            &["a"],
            &["a 1", "usr-is-merged 1"],
        );
        check(&["a 1; Depends: x (>= 2) | y", "x 1", "y 1"], &["a"], &["a 1", "y 1"]);
    }

    #[test]
    fn provided_names_satisfy() {
        check(&["a 1; Depends: mail", "p 1; Provides: mail"], &["a"], &["a 1", "p 1"]);
        check(
            &["a 1; Depends: mail (>= 2)", "p 1; Provides: mail", "q 1; Provides: mail (= 2)"],
            &["a"],
            &["a 1", "q 1"],
        );
        check(
            &["a 1; Depends: awk", "gawk 1; Provides: awk", "mawk 1; Provides: awk; Priority: required"],
            &["a"],
            &["a 1", "mawk 1"],
        );
        check(&["p 1; Provides: mail"], &["mail"], &["p 1"]);
        check_fails(&["p 1; Provides: mail", "q 1; Provides: mail"], &["mail"], "p, q");
    }

    #[test]
    fn newest_version_is_taken_unless_another_is_asked_for() {
        let packages = ["a 1", "a 1+deb12u1", "a 1~rc1"];
        check(&packages, &["a"], &["a 1+deb12u1"]);
        check(&packages, &["a=1"], &["a 1"]);
        check_fails(&packages, &["a=7"], "only 1+deb12u1, 1, 1~rc1");
        check_fails(&packages, &["a=1", "a=1~rc1"], "asked for too");
        check(&["a 1; Depends: lib (= 1)", "lib 1", "lib 2"], &["a"], &["a 1", "lib 1"]);
    }

    #[test]
    fn exclusions_are_refused_or_avoided() {
        check_fails(
            &["a 1; Conflicts: b", "b 1"],
            &["a", "b"],
            "a 1 cannot be installed together with b 1: Conflicts: b",
        );
        check_fails(&["a 1; Breaks: b (<< 2)", "b 1"], &["a", "b"], "Breaks: b (<< 2)");
        check(&["a 1; Breaks: b (<< 2)", "b 2"], &["a", "b"], &["a 1", "b 2"]);
        check(&["a 1; Conflicts: mta; Provides: mta"], &["a"], &["a 1"]);
        check_fails(
            &["a 1; Conflicts: mta; Provides: mta", "b 1; Provides: mta"],
            &["a", "b"],
            "Conflicts: mta",
        );
        check(&["a 1; Depends: x | y; Conflicts: x", "x 1", "y 1"], &["a"], &["a 1", "y 1"]);
    }

    #[test]
    fn impossible_requests_say_why() {
        check_fails(&["python3 1"], &["pyhton3"], "did you mean `python3`?");
        check_fails(&["a 1; Depends: gone"], &["a"], "no package is or provides gone");
        check_fails(&["a 1; Depends: b (>= 2)", "b 1"], &["a"], "only up to version 1");
        check_fails(&["a 1; Depends: b:i386", "b 1"], &["a"], "another architecture");
        check(&["a 1; Depends: b:any", "b 1"], &["a"], &["a 1", "b 1"]);
    }

    #[test]
    fn cycles_end() {
        check(&["a 1; Depends: b", "b 1; Depends: a"], &["a"], &["a 1", "b 1"]);
    }

    #[test]
    fn hostile_index_entries_are_refused() {
        let read = |text: String| Index::default().add(text.as_bytes(), "amd64", 0);
        let stanza = |name: &str, filename: &str| {
            format!(
                "Package: {name}\nVersion: 1\nArchitecture: amd64\nFilename: {filename}\nSize: 1\nSHA256: {}\n",
                "0".repeat(64)
            )
        };
        assert!(read(stanza("a", "pool/a.deb")).is_ok());
        assert!(read(stanza("a", "../a.deb")).is_err());
        assert!(read(stanza("a", "/etc/passwd")).is_err());
        assert!(read(stanza("../a", "pool/a.deb")).is_err());
        assert!(read(stanza("", "pool/a.deb")).is_err());
        assert!(read(stanza("a", "pool/a.deb").replace("Size: 1", "Size: many")).is_err());
    }
}
