//! Numbers in lines for people.
//!
//! A name is followed by `:` or `=` and a number, or, when its last word is one that only metrics have, by a blank and a number. A name is one
//! word, and the word before it when that says of which part: `test accuracy: 0.9` is `test_accuracy`. A number ends at a blank, one of
//! `,;)]}|/%` or the end. `epoch`, `step`, `iteration` and the like are the step of the other values of their line when there are any.

/// A longer line is data rather than words.
const LINE_BYTES_MAX: usize = 4096;

/// Values that one line can tell.
const VALUES_MAX: usize = 64;

/// Words that need no `:` or `=` before their number.
const WORDS: [&str; 26] = [
    "loss",
    "losses",
    "acc",
    "accuracy",
    "error",
    "err",
    "precision",
    "recall",
    "f1",
    "auc",
    "mae",
    "mse",
    "rmse",
    "r2",
    "nll",
    "ppl",
    "perplexity",
    "bleu",
    "rouge",
    "iou",
    "dice",
    "map",
    "reward",
    "return",
    "score",
    "lr",
];

/// What a program's text about its options says of them is no measurement: `(default: 0.1)`.
const OF_OPTIONS: [&str; 2] = ["default", "defaults"];

/// Words that say of which part of the data the name behind them is.
const PARTS: [&str; 15] = [
    "train",
    "training",
    "test",
    "testing",
    "val",
    "valid",
    "validation",
    "eval",
    "dev",
    "best",
    "mean",
    "avg",
    "average",
    "final",
    "total",
];

/// Names that count.
pub(super) const STEPS: [&str; 9] =
    ["step", "steps", "global_step", "_step", "epoch", "epochs", "iteration", "iter", "iterations"];

/// Hands out the values of a line: name, step, value.
pub(super) fn read(line: &[u8], mut take: impl FnMut(String, Option<u64>, f64)) {
    // A progress bar writes its line again and again: the last state counts.
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = &line[line.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1)..];
    // Most lines of a chatty program hold no number at all.
    if line.len() > LINE_BYTES_MAX || !line.iter().any(u8::is_ascii_digit) {
        return;
    }
    let Ok(text) = std::str::from_utf8(line) else { return };
    let text = without_colours(text);
    let mut values = values(&text);
    let is_step = |name: &str| STEPS.contains(&name.to_ascii_lowercase().as_str());
    let step = values
        .iter()
        .find(|(name, value)| is_step(name) && *value >= 0.0 && value.fract() == 0.0 && *value < 1e15)
        .map(|(_, value)| *value as u64);
    if values.iter().any(|(name, _)| !is_step(name)) {
        values.retain(|(name, _)| !is_step(name));
    }
    for (name, value) in values {
        take(name, step, value);
    }
}

fn values(text: &str) -> Vec<(String, f64)> {
    let mut values = Vec::new();
    // The word before, with nothing but blanks between.
    let mut word: Option<&str> = None;
    let mut rest = text;
    let mut is_option = false;
    while let Some(first) = rest.chars().next() {
        if values.len() >= VALUES_MAX {
            break;
        }
        if first.is_alphabetic() || first == '_' {
            let is_inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '@');
            let end = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches(['.', '-', '/']);
            let before = word.replace(name);
            rest = &rest[end.max(first.len_utf8())..];
            let blank = rest.trim_start_matches([' ', '\t']);
            let (number, is_named) = match blank.strip_prefix([':', '=']) {
                Some(behind) => (behind.trim_start_matches([' ', '\t']), true),
                None => (blank, false),
            };
            let last = name.rsplit(['_', '-', '/', '.']).next().unwrap_or(name).to_ascii_lowercase();
            let is_word = blank.len() < rest.len()
                && (WORDS.contains(&last.as_str()) || STEPS.contains(&name.to_ascii_lowercase().as_str()));
            // An option of a command line that is shown is no measurement.
            if (is_named || is_word)
                && !is_option
                && let Some((value, behind)) = number_at(number)
            {
                let part = before.filter(|part| PARTS.contains(&part.to_ascii_lowercase().as_str()));
                rest = behind;
                word = None;
                if OF_OPTIONS.contains(&name.to_ascii_lowercase().as_str()) {
                    continue;
                }
                let name = match part {
                    Some(part) => format!("{}_{name}", part.to_ascii_lowercase()),
                    None => name.to_owned(),
                };
                values.push((name, value));
            }
        } else {
            if !first.is_whitespace() {
                word = None;
            }
            // A number, or a word that starts with one, is no name.
            let end = if first.is_ascii_digit() {
                rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            rest = &rest[end..];
            is_option = first == '-';
        }
    }
    values
}

/// The number that a text starts with, and what follows it.
pub(super) fn number_at(text: &str) -> Option<(f64, &str)> {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let start = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let mut end = digits(start);
    let mut count = end - start;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        count += fraction - end - 1;
        end = fraction;
    }
    if count == 0 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    let behind = &text[end..];
    let ends = behind.is_empty() || behind.starts_with([' ', '\t', ',', ';', ')', ']', '}', '|', '/', '%']);
    if !ends {
        return None;
    }
    // A dot that ends a sentence is no part of it, and does no harm.
    text[..end].parse().ok().map(|value| (value, behind))
}

/// Without the sequences that colour text on a terminal.
fn without_colours(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains('\u{1b}') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        let sequence = sequence.strip_prefix('[').unwrap_or(sequence);
        rest = sequence.find(|c: char| ('@'..='~').contains(&c)).map_or("", |end| &sequence[end + 1..]);
    }
    plain.push_str(rest);
    plain.into()
}

#[cfg(test)]
mod tests {
    fn check(line: &str, expected: &[(&str, Option<u64>, f64)]) {
        let mut found = Vec::new();
        super::read(line.as_bytes(), |name, step, value| found.push((name, step, value)));
        let found: Vec<_> = found.iter().map(|(name, step, value)| (name.as_str(), *step, *value)).collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn numbers_behind_names_are_found() {
        check("loss: 0.35\n", &[("loss", None, 0.35)]);
        check("loss=1e-3", &[("loss", None, 1e-3)]);
        check("loss 0.35, accuracy 97.5%", &[("loss", None, 0.35), ("accuracy", None, 97.5)]);
        check("epoch 3/10 loss 0.5 train_acc=.9", &[("loss", Some(3), 0.5), ("train_acc", Some(3), 0.9)]);
        check("Epoch: 2 - val_loss: 1.5", &[("val_loss", Some(2), 1.5)]);
        check("epoch: 7", &[("epoch", Some(7), 7.0)]);
        check("Test accuracy: 0.97", &[("test_accuracy", None, 0.97)]);
        check("{'eval/loss': 0.5}", &[]);
        check("eval/loss: 0.5", &[("eval/loss", None, 0.5)]);
        check("[12:30:01] INFO loss = -2.", &[("loss", None, -2.0)]);
        check("\u{1b}[32mloss\u{1b}[0m: 0.1", &[("loss", None, 0.1)]);
        check("10%|█ | loss=3\r50%|█████ | loss=2", &[("loss", None, 2.0)]);
        check("größe: 5", &[("größe", None, 5.0)]);
    }

    #[test]
    fn other_numbers_are_left_alone() {
        check("training on 2000 images", &[]);
        check("ETA: 00:35", &[]);
        check("at 12:00:01", &[]);
        check("version: 1.2.3", &[]);
        check("saved to model_3.npz", &[]);
        check("address: 0x7f", &[]);
        check("loss: nan", &[]);
        check("took 5s", &[]);
        check("train.py --lr=0.1 --loss 5 -acc 1", &[]);
        check("  --lr LR  the rate of learning (default: 0.1)", &[]);
        check("  --epochs INTEGER  how often [default: 10; x>=1]", &[]);
        check("", &[]);
        check(&format!("loss: 1 {}", "x".repeat(5000)), &[]);
    }
}
