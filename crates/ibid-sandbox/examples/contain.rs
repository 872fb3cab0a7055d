//! Runs a program in a container: the whole of this library behind a few options. For trying out, and for
//! measuring the start.
//!
//! ```text
//! contain [OPTION…] PROGRAM [ARGUMENT…]
//!   --folder PATH            the root file system, as it is
//!   --lower PATH             a layer, the topmost first; repeat
//!   --upper PATH --work PATH the writable part
//!   --bind SOURCE:TARGET     a mount; --bind-read-only the same without writing
//!   --idmap U:V:G:H          for the next --bind: user U on disk is V in the container, group G is H
//!   --tmpfs TARGET           an empty folder in memory
//!   --file TARGET=CONTENT    a read-only file
//!   --env NAME=VALUE, --cwd PATH, --uid N, --gid N, --hostname NAME
//!   --terminal, --no-network, --read-only
//! ```

#[path = "../tests/sandbox/contain.rs"]
mod contain;

fn main() -> std::process::ExitCode {
    ibid_sandbox::stage_main_if_asked();
    contain::main(std::env::args().skip(1))
}
