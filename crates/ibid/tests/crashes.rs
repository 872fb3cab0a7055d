//! Builds that are killed at any point: what they leave is sound, and the next build gives the same image.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use support::{Project, can_build};

#[test]
fn a_killed_build_leaves_a_sound_store() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS one\nRUN echo @UNIQUE@ > /one && head -c 3000000 /dev/zero > /large\n\
         FROM debian:bookworm-slim\nCOPY files /files\nRUN --mount=type=cache,target=/cache echo 1 >> /cache/count && cp -r /files /copy\n\
         COPY --from=one /one /large /\nWORKDIR /code\nRUN cat /one\nENTRYPOINT [\"cat\", \"/one\"]\n",
    );
    for number in 0..200 {
        project.file(&format!("files/{number}"), &format!("{number}\n").repeat(100));
    }
    let expected = project.check(&["build", "--no-cache"], 0);
    // It says a line when a step begins, when it ends, and for each line of a step's output: killed at each of them.
    let mut line = 0;
    loop {
        line += 1;
        let mut build = project.command(&["build", "--no-cache"]);
        let mut child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("ibid starts");
        let narration = BufReader::new(child.stderr.take().expect("a pipe"));
        let is_reached = narration.lines().map_while(Result::ok).nth(line - 1).is_some();
        // It may have ended meanwhile.
        let _ = child.kill();
        child.wait().expect("ibid ends");
        assert_eq!(project.check(&["build"], 0), expected, "killed at line {line}");
        if !is_reached {
            break;
        }
    }
    assert!(line > 8, "only {line} lines");
    let output = project.check(&["run", "--pegged"], 0);
    assert_eq!(output, format!("{}\n", project.place.path().display()));
    // Whoever opens the store removes what the dead have left.
    let left = fs::read_dir(project.data.join("ibid/tmp")).expect("the store").count();
    assert!(left <= 1, "{left} things are left in the store's folder of drafts");
}
