//! Tables: columns as wide as their widest cell, and no wider in all than the terminal.

use std::io::IsTerminal as _;

use crate::ui::{self, Ui};

/// The narrowest that a column is cut to.
const CUT_MIN: usize = 8;
const GAP: usize = 2;

/// A column with its cells.
pub struct Column {
    pub title: String,
    pub cells: Vec<String>,
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

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(|cell| width(cell)).chain([width(&self.title)]).max().unwrap_or(0)
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Lines of a table, the head first. Within `width_max`, the last column is cut as far as it may be, then columns are left
/// out from the right; the number of those is returned, too. The first is always there.
pub fn lines(columns: &[Column], width_max: Option<usize>) -> (Vec<Vec<String>>, usize) {
    let mut widths: Vec<usize> = columns.iter().map(Column::width).collect();
    if let Some(width_max) = width_max {
        while widths.len() > 1 {
            let others: usize = widths[..widths.len() - 1].iter().map(|width| width + GAP).sum();
            let last = widths.last_mut().expect("there are two");
            if others + *last <= width_max {
                break;
            }
            if others + CUT_MIN <= width_max && !columns[widths.len() - 1].right {
                let last = widths.last_mut().expect("there are two");
                *last = width_max - others;
                break;
            }
            widths.pop();
        }
    }
    let rows = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
    let line = |text: &dyn Fn(&Column) -> String| {
        let cells = columns.iter().zip(&widths).enumerate().map(|(number, (column, &width))| {
            let text = cut(text(column), width);
            match (column.right, number + 1 == widths.len()) {
                (true, _) => format!("{text:>width$}"),
                (false, true) => text,
                (false, false) => format!("{text:width$}"),
            }
        });
        cells.collect::<Vec<_>>()
    };
    let head = line(&|column| column.title.clone());
    let body = (0..rows).map(|row| line(&|column| column.cells.get(row).cloned().unwrap_or_default()));
    (std::iter::once(head).chain(body).collect(), columns.len() - widths.len())
}

/// Prints a table; `paint` may colour a padded cell, given its row and column. Says how many columns had no room.
pub fn print(ui: &Ui, columns: &[Column], paint: &dyn Fn(usize, usize, String) -> String) -> usize {
    let (lines, hidden) = lines(columns, terminal_width());
    let mut text = String::new();
    for (row, cells) in lines.into_iter().enumerate() {
        let cells = cells.into_iter().enumerate().map(|(column, cell)| match row.checked_sub(1) {
            None => ui.paint_stdout(ui::BOLD, &cell),
            Some(row) => paint(row, column, cell),
        });
        text.push_str(cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end());
        text.push('\n');
    }
    // At once: a line at a time costs a system call each.
    ui::print(text.trim_end_matches('\n'));
    hidden
}

fn cut(text: String, width: usize) -> String {
    if text.len() <= width && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return text;
    }
    // A cell is one line, whatever it holds.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(width) {
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        None => text,
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
                cells: vec![cell.to_owned()],
                right,
            })
        };
        let check = |width: Option<usize>, expected: [&str; 2], hidden: usize| {
            let (lines, left_out) = lines(&columns(), width);
            let lines: Vec<String> = lines.iter().map(|cells| cells.join("  ")).collect();
            assert_eq!((lines, left_out), (expected.map(str::to_owned).to_vec(), hidden), "{width:?}");
        };
        check(None, ["ID            CODE   LOSS  NOTE", "3eda7e8f3827     0  0.354  a long one"], 0);
        check(Some(38), ["ID            CODE   LOSS  NOTE", "3eda7e8f3827     0  0.354  a long one"], 0);
        check(Some(35), ["ID            CODE   LOSS  NOTE", "3eda7e8f3827     0  0.354  a long …"], 0);
        check(Some(34), ["ID            CODE   LOSS", "3eda7e8f3827     0  0.354"], 1);
        check(Some(30), ["ID            CODE   LOSS", "3eda7e8f3827     0  0.354"], 1);
        check(Some(3), ["ID", "3eda7e8f3827"], 3);
    }
}
