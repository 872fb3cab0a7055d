//! What people see while ibid works. Narration, progress and errors go to stderr; stdout belongs to data.
//! Colour and moving bars appear only on a terminal, and never when `NO_COLOR` is set.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GREEN: Style = AnsiColor::Green.on_default();
pub const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
pub const RED: Style = AnsiColor::Red.on_default().bold();
pub const CYAN: Style = AnsiColor::Cyan.on_default();

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// The one place that writes to the terminal.
pub struct Ui {
    verbosity: Verbosity,
    colour: bool,
    bars: MultiProgress,
    moving: bool,
}

impl Ui {
    pub fn new(verbosity: Verbosity) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let plain = no_colour || !is_terminal || is_dumb;
        let moving = !plain && verbosity > Verbosity::Quiet;
        let target = if moving { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { verbosity, colour: !plain, bars: MultiProgress::with_draw_target(target), moving }
    }

    /// True when bars move; otherwise milestones are to be said in lines.
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// Text in a style, or plain where colour is off.
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// As [`Self::paint`], for text that goes to stdout.
    pub fn paint_stdout(&self, style: Style, text: &str) -> String {
        if self.has_colour_on_stdout() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// As [`Self::has_colour`], for text that goes to stdout.
    pub fn has_colour_on_stdout(&self) -> bool {
        self.colour && std::io::stdout().is_terminal()
    }

    /// Narration.
    pub fn say(&self, line: &str) {
        if self.verbosity >= Verbosity::Normal {
            self.write(line);
        }
    }

    /// Narration for those who asked for more.
    pub fn detail(&self, line: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.write(line);
        }
    }

    /// Something that needs attention but stops nothing.
    pub fn warn(&self, line: &str) {
        self.write(&format!("{} {line}", self.paint(YELLOW, "warning:")));
    }

    /// What to do about it.
    pub fn hint(&self, line: &str) {
        self.write(&format!("{} {line}", self.paint(CYAN, "hint:")));
    }

    /// A line, whatever was asked for.
    pub fn write(&self, line: &str) {
        // A closed stderr is no reason to stop.
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
        });
    }

    /// A bar over `bytes` bytes, titled.
    pub fn bytes_bar(&self, title: &str, bytes: u64) -> ProgressBar {
        self.bar(title, bytes, "{prefix:28} {bar:24} {bytes:>10} of {total_bytes:10} {bytes_per_sec}")
    }

    /// A bar over `count` things, titled.
    pub fn count_bar(&self, title: &str, count: u64) -> ProgressBar {
        self.bar(title, count, "{prefix:28} {bar:24} {pos:>10} of {len}")
    }

    /// A spinner with the time since its start, titled; its message is the latest line of output.
    pub fn spinner(&self, title: &str) -> ProgressBar {
        let bar = self.bar(title, 0, "{spinner} {prefix} {elapsed:.dim} {wide_msg:.dim}");
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    fn bar(&self, title: &str, length: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template)
            .expect("the templates above are sound")
            .progress_chars("━╸─");
        let bar = ProgressBar::new(length).with_style(style).with_prefix(title.to_owned());
        if self.moving { self.bars.add(bar) } else { bar }
    }
}

/// A line of data for stdout. A reader that went away, as `head` does, ends the program quietly.
pub fn print(line: &str) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{}", printable(line)) {
        let code = if error.kind() == std::io::ErrorKind::BrokenPipe {
            0
        } else {
            // As far as a message can still be shown.
            let _ = writeln!(std::io::stderr().lock(), "error: cannot write to stdout: {error}");
            crate::report::EXIT_IBID_FAILED
        };
        std::process::exit(i32::from(code));
    }
}

/// Text without what would move the cursor or change the terminal's state, as a hostile file name or a program's output
/// can hold it: lines, tabs and colours stay.
fn printable(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    // Nearly all text is so, and there may be much of it.
    let is_simple = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(is_simple) || text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.peek() == Some(&'[') {
            let mut sequence = String::from("\u{1b}");
            for next in characters.by_ref() {
                sequence.push(next);
                if next != '[' && ('@'..='~').contains(&next) {
                    break;
                }
            }
            if sequence.ends_with('m') {
                shown.push_str(&sequence);
            }
        } else if is_plain(character) {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Bytes for people: `41.2 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A duration for people: `0.4 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.095 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else {
        let whole = seconds.round() as u64;
        if whole < 3600 {
            format!("{} min {} s", whole / 60, whole % 60)
        } else {
            format!("{} h {} min", whole / 3600, whole / 60 % 60)
        }
    }
}

/// A measured number for people: six digits, and no more than it has.
pub fn number(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    if !(1e-4..1e9).contains(&size) {
        return format!("{number:.4e}").replace(".0000e", "e");
    }
    let decimals = (5 - size.log10().floor() as i32).clamp(0, 9) as usize;
    let mut text = format!("{number:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

/// An instruction on one line, cut where it gets long.
pub fn one_line(text: &str) -> String {
    const CHARACTERS_MAX: usize = 90;
    let line = text.replace('\n', " ⏎ ");
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A digest short enough for a line: `sha256:` and 12 digits.
pub fn short_digest(digest: &ibid_core::digest::Digest) -> String {
    format!("sha256:{}", &digest.hex()[..12])
}

/// Text with every digest in it as [`short_digest`] has it.
pub fn with_short_digests(text: &str) -> String {
    const PREFIX: &str = "sha256:";
    let mut parts = text.split(PREFIX);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let kept = if digits == 64 { 12 } else { digits };
        shown.extend([PREFIX, &part[..kept], &part[digits..]]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_shortened_wherever_they_stand() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(
            with_short_digests(&format!("1 B, {digest}, then {digest}!")),
            "1 B, sha256:abababababab, then sha256:abababababab!"
        );
        assert_eq!(with_short_digests("sha256:ab, sha256:ü"), "sha256:ab, sha256:ü");
        assert_eq!(with_short_digests(""), "");
    }

    #[test]
    fn lines_are_cut_and_cleaned() {
        assert_eq!(one_line("RUN a\nb"), "RUN a ⏎ b");
        assert_eq!(one_line(&"x".repeat(100)), format!("{}…", "x".repeat(90)));
        assert_eq!(
            printable("a\u{1b}[31mred\u{1b}[0m\u{1b}[2K\u{7}b\tc\r\n\u{1b}]0;title\u{7}\u{9b}2J"),
            "a\u{1b}[31mred\u{1b}[0mb\tc\n]0;title2J"
        );
        assert_eq!(printable("plain ü\n"), "plain ü\n");
    }

    #[test]
    fn amounts_read_well() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.0 kB");
        check(41_234_567, "41.2 MB");
        check(999_960, "1.0 MB");
        check(123_000_000_000, "123 GB");
        let check = |value, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(5.0, "5");
        check(0.905_312_345, "0.905312");
        check(-12.5, "-12.5");
        check(16_384.0, "16384");
        check(1_234_567.8, "1234568");
        check(0.000_25, "0.00025");
        check(1.5e-7, "1.5000e-7");
        check(3e12, "3e12");
        check(f64::NAN, "NaN");
        let check = |value, expected: &str| assert_eq!(seconds(value), expected);
        check(0.004, "4 ms");
        check(0.42, "0.4 s");
        check(59.97, "1 min 0 s");
        check(125.2, "2 min 5 s");
        check(7300.0, "2 h 1 min");
    }
}
