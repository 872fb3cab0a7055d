//! Signals on their way into a container, and the end of a container whose starter dies.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use ibid_sys::signal::send;

use crate::world::{Test, World};

pub const TESTS: &[(&str, Test)] = &[
    ("signals::are_passed_on", passed_on),
    ("signals::ctrl_c_comes_once", once),
    ("signals::reach_the_whole_foreground", foreground),
    ("signals::a_killed_starter_ends_everything", killed_starter),
    ("signals::none_is_blocked_or_ignored", fresh),
];

/// Starts it, and waits until it says "ready".
fn start(mut command: Command) -> (Child, BufReader<ChildStdout>) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn().expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    assert_eq!(line(&mut output), "ready");
    (child, output)
}

fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}

const WAIT: &str = "echo ready; while :; do sleep 1000 & wait $!; done";

fn passed_on(world: &World) {
    for (name, number) in [("TERM", 15), ("USR1", 10), ("USR2", 12), ("HUP", 1), ("INT", 2), ("QUIT", 3)] {
        let script = format!("trap 'exit 9' {name}; {WAIT}");
        let (mut child, _output) = start(world.command(&[], &["sh", "-c", &script]));
        send(child.id() as i32, number).expect("it lives");
        assert_eq!(child.wait().expect("it ends").code(), Some(9), "{name}");
    }
}

fn once(world: &World) {
    let script = format!("trap 'n=$((n+1)); echo interrupted' INT; trap 'echo $n; exit' TERM; {WAIT}");
    let (mut child, mut output) = start(world.command(&[], &["sh", "-c", &script]));
    // As a terminal does it: to everything in the foreground.
    send(-(child.id() as i32), 2).expect("it lives");
    assert_eq!(line(&mut output), "interrupted");
    send(child.id() as i32, 15).expect("it lives");
    assert_eq!(line(&mut output), "1");
    child.wait().expect("it ends");
}

fn foreground(world: &World) {
    // The shell waits for its child, and only the child can end it.
    let script = "trap : INT; sh -c 'trap \"exit 3\" INT; echo ready; while :; do sleep 1000 & wait $!; done'; exit $?";
    let (mut child, _output) = start(world.command(&[], &["sh", "-c", script]));
    send(child.id() as i32, 2).expect("it lives");
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
}

fn killed_starter(world: &World) {
    let script = "sh -c 'trap \"\" TERM HUP INT; setsid sleep 1000' & echo ready; wait";
    let (mut child, mut output) = start(world.command(&[], &["sh", "-c", script]));
    child.kill().expect("it lives");
    child.wait().expect("it ends");
    // Every process inside holds the other end of this pipe: it ends when all are dead.
    output.read_to_end(&mut Vec::new()).expect("readable");
}

fn fresh(world: &World) {
    let mut command = world.place.command("bash");
    command.arg("-c").arg("trap '' PIPE USR1 HUP; exec \"$@\"").arg("bash");
    let inner = world.command(&[], &["cat", "/proc/self/status"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let outcome = world.finish(command);
    let sets: Vec<&str> = outcome
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("Sig")?.split_once('\t'))
        .filter(|(name, _)| ["Blk:", "Ign:", "Cgt:"].contains(name))
        .map(|(_, set)| set)
        .collect();
    assert_eq!(sets, ["0000000000000000"; 3]);
}
