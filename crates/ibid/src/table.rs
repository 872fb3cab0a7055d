//! Tables: columns as wide as their widest cell, and no wider in all than the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anstyle::Style;

use crate::ui::{self, Ui};

/// The narrowest that a column is cut to.
const CUT_MIN: usize = 8;
const GAP: usize = 2;

/// A column with its cells.
pub struct Column<'a> {
    pub title: String,
    pub cells: Vec<Cow<'a, str>>,
    /// Numbers stand under each other.
    pub right: bool,
}

/// Columns of the terminal that stdout is; none for a file or a pipe.
pub fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let size = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    Some(columns.or_else(size).filter(|&columns| columns > 0).unwrap_or(80))
}

impl Column<'_> {
    fn width(&self) -> usize {
        self.cells.iter().map(|cell| width(cell)).chain([width(&self.title)]).max().unwrap_or(0)
    }
}

fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// Widths of the columns that have room, and how many others there are. Within `width_max`, the last column is cut as far
/// as it may be, then columns are left out from the right. The first is always there.
fn layout(columns: &[Column], width_max: Option<usize>) -> (Vec<usize>, usize) {
    let mut widths: Vec<usize> = columns.iter().map(Column::width).collect();
    if let Some(width_max) = width_max {
        while widths.len() > 1 {
            let others: usize = widths[..widths.len() - 1].iter().map(|width| width + GAP).sum();
            if others + widths[widths.len() - 1] <= width_max {
                break;
            }
            if others + CUT_MIN <= width_max && !columns[widths.len() - 1].right {
                *widths.last_mut().expect("there are two") = width_max - others;
                break;
            }
            widths.pop();
        }
    }
    let hidden = columns.len() - widths.len();
    (widths, hidden)
}

/// The lines of a table, the head first. `styles` are those of the head, and of a cell given its row and column.
fn lines(
    columns: &[Column],
    widths: &[usize],
    head: Style,
    styles: &dyn Fn(usize, usize) -> Option<Style>,
) -> String {
    let rows = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
    let mut text = String::with_capacity((rows + 1) * (widths.iter().sum::<usize>() + widths.len() * GAP));
    for row in 0..=rows {
        for (number, (column, &width)) in columns.iter().zip(widths).enumerate() {
            if number > 0 {
                text.extend([' '; GAP]);
            }
            let (cell, style) = match row.checked_sub(1) {
                None => (column.title.as_str(), Some(head)),
                Some(row) => (column.cells.get(row).map_or("", |cell| cell), styles(row, number)),
            };
            if let Some(style) = style {
                let _ = write!(text, "{style}");
            }
            push_cell(&mut text, cell, width, column.right);
            if let Some(style) = style {
                let _ = write!(text, "{style:#}");
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text.pop();
    text
}

/// Prints a table; `style` may colour a cell, given its row and column. Says how many columns had no room.
pub fn print(ui: &Ui, columns: &[Column], style: &dyn Fn(usize, usize) -> Option<Style>) -> usize {
    let (widths, hidden) = layout(columns, terminal_width());
    let text = if ui.has_colour_on_stdout() {
        lines(columns, &widths, ui::BOLD, style)
    } else {
        lines(columns, &widths, Style::new(), &|_, _| None)
    };
    // At once: a line at a time costs a system call each.
    ui::print(&text);
    hidden
}

/// A cell as wide as its column. It is one line, whatever it holds.
fn push_cell(line: &mut String, text: &str, width_max: usize, right: bool) {
    let width = width(text);
    let padding = width_max.saturating_sub(width);
    if right {
        line.extend(std::iter::repeat_n(' ', padding));
    }
    if width <= width_max && !text.bytes().any(|byte| byte.is_ascii_control()) {
        line.push_str(text);
    } else {
        let kept = if width <= width_max { width } else { width_max.saturating_sub(1) };
        line.extend(text.chars().take(kept).map(|c| if c.is_control() { ' ' } else { c }));
        if kept < width {
            line.push('…');
        }
    }
    if !right {
        line.extend(std::iter::repeat_n(' ', padding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit() {
        let columns = || {
            [
                ("ID", "3eda7e8f3827", false),
                ("CODE", "0", true),
                ("LOSS", "0.354", true),
                ("NOTE", "a long one", false),
            ]
            .map(|(title, cell, right)| Column {
                title: title.to_owned(),
                cells: vec![cell.into()],
                right,
            })
        };
        let check = |width: Option<usize>, expected: [&str; 2], hidden: usize| {
            let (widths, left_out) = layout(&columns(), width);
            let lines = lines(&columns(), &widths, Style::new(), &|_, _| None);
            assert_eq!((lines, left_out), (expected.join("\n"), hidden), "{width:?}");
        };
        check(None, ["ID            CODE   LOSS  NOTE", "3eda7e8f3827     0  0.354  a long one"], 0);
        check(Some(38), ["ID            CODE   LOSS  NOTE", "3eda7e8f3827     0  0.354  a long one"], 0);
        check(Some(35), ["ID            CODE   LOSS  NOTE", "3eda7e8f3827     0  0.354  a long …"], 0);
        check(Some(34), ["ID            CODE   LOSS", "3eda7e8f3827     0  0.354"], 1);
        check(Some(30), ["ID            CODE   LOSS", "3eda7e8f3827     0  0.354"], 1);
        check(Some(3), ["ID", "3eda7e8f3827"], 3);
    }
}
