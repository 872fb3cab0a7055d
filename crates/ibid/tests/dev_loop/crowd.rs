//! Many runs at once that share a store.

use std::process::{Child, Command, Output, Stdio};

use crate::site::Site;

const RUNS: usize = 200;

fn started(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ibid starts")
}

/// Waits for all of them; each has to end well, and to say what is expected.
fn check(children: Vec<(String, Child)>, expected: &str) {
    let ended: Vec<(String, Output)> = children
        .into_iter()
        .map(|(name, child)| (name, child.wait_with_output().expect("it ends")))
        .collect();
    let failures: Vec<String> = ended
        .iter()
        .filter(|(_, output)| {
            !output.status.success() || !String::from_utf8_lossy(&output.stdout).contains(expected)
        })
        .map(|(name, output)| {
            format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), ended.len(), failures.join("\n"));
    let warned: Vec<_> = ended
        .iter()
        .map(|(_, output)| String::from_utf8_lossy(&output.stderr))
        .filter(|stderr| stderr.contains("warning:"))
        .collect();
    assert!(warned.is_empty(), "{} of {} warn:\n{}", warned.len(), ended.len(), warned.join("\n"));
}

fn recorded(site: &Site, project: &str) -> usize {
    let output = site.command(project, &["runs", "--json"]).output().expect("ibid starts");
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let runs = runs["runs"].as_array().expect("a list");
    runs.iter().filter(|run| run["status"] == "ok").count()
}

#[test]
fn two_hundred_runs_of_one_project() {
    Site::each(|site| {
        site.save("train.sh", "echo \"run $1\" > output/$1 && echo done $1\n");
        site.place.folder("project/output");
        site.own();
        site.check(&["build"], 0);
        let children = (0..RUNS)
            .map(|number| {
                let command = site.command("project", &["run", &number.to_string()]);
                (format!("run {number}"), started(command))
            })
            .collect();
        check(children, "done");
        assert_eq!(recorded(site, "project"), RUNS);
    });
}

#[test]
fn two_hundred_runs_of_twenty_projects_beside_builds_and_a_collection() {
    const PROJECTS: usize = 20;
    Site::each(|site| {
        let names: Vec<String> = (0..PROJECTS).map(|number| format!("project-{number}")).collect();
        for name in &names {
            site.project(name);
            site.place.file(&format!("{name}/train.sh"), "echo done\n");
            site.place.file(&format!("{name}/ibid.toml"), &format!("name = \"{name}\"\n"));
        }
        site.own();
        // The first ten builds happen at once, and so do the runs that wait for them.
        let mut children: Vec<(String, Child)> = Vec::new();
        for number in 0..RUNS {
            let name = &names[number % PROJECTS];
            children.push((format!("run {number} of {name}"), started(site.command(name, &["run"]))));
            if number % 50 == 25 {
                let collection = started(site.command(name, &["gc", "--keep", "0"]));
                let output = collection.wait_with_output().expect("it ends");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        check(children, "done");
        for name in &names {
            assert_eq!(recorded(site, name), RUNS / PROJECTS, "{name}");
        }
    });
}
