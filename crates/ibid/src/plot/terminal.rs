//! Charts of characters: dots of Braille, eight to a character, or a sign for each run where colours cannot tell them apart.

use anstyle::{AnsiColor, Style};

use super::Chart;

/// Rows of the drawing.
const ROWS: usize = 14;
const COLUMNS_MIN: usize = 20;
/// Columns between marks of the axis of steps.
const TICK_COLUMNS: usize = 14;
/// Bit of each dot of a Braille character, by row and column.
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
const SIGNS: [char; 8] = ['•', '×', '+', 'o', '*', '#', '%', '@'];
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Magenta,
    AnsiColor::Green,
    AnsiColor::Red,
    AnsiColor::Blue,
];

/// Colours text for the run of a number.
pub type Paint<'a> = &'a dyn Fn(usize, &str) -> String;

/// One character of the drawing.
#[derive(Clone, Copy, Default)]
struct Cell {
    dots: u8,
    /// The run that drew here last.
    series: usize,
}

/// The colour of a run.
pub fn style(number: usize) -> Style {
    COLOURS[number % COLOURS.len()].on_default()
}

/// The sign of a run.
pub fn sign(number: usize) -> char {
    SIGNS[number % SIGNS.len()]
}

/// Draws a chart in `width` columns. `paint` colours text for the run of a number; none means that signs tell runs apart.
pub fn draw(chart: &Chart, width: usize, paint: Option<Paint>) -> Vec<String> {
    let Some((steps, values)) = chart.scales(width / TICK_COLUMNS, 4) else {
        return vec!["no value to draw".to_owned()];
    };
    let margin = values.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
    let columns = width.saturating_sub(margin + 2).max(COLUMNS_MIN);
    let mut cells = vec![vec![Cell::default(); columns]; ROWS];
    for series in &chart.series {
        let mut before: Option<(isize, isize)> = None;
        for (step, value) in chart.places(series) {
            let x = (steps.fraction(step) * (columns * 2 - 1) as f64).round() as isize;
            let y = ((1.0 - values.fraction(value)) * (ROWS * 4 - 1) as f64).round() as isize;
            line(before.unwrap_or((x, y)), (x, y), |x, y| {
                let cell = &mut cells[y / 4][x / 2];
                cell.dots |= DOTS[y % 4][x % 2];
                cell.series = series.number;
            });
            before = Some((x, y));
        }
    }
    let row_of = |place: f64| ((1.0 - values.fraction(place)) * (ROWS - 1) as f64).round() as usize;
    let mut lines: Vec<String> = Vec::with_capacity(ROWS + 2);
    for (row, cells) in cells.iter().enumerate() {
        let tick = values.ticks.iter().find(|(place, _)| row_of(*place) == row);
        let (label, axis) = tick.map_or(("", '│'), |(_, text)| (text.as_str(), '┤'));
        let mut text = format!("{label:>margin$} {axis}");
        // Runs of one colour in one go.
        for part in cells.chunk_by(|a, b| (a.dots == 0, a.series) == (b.dots == 0, b.series)) {
            let drawn: String = part.iter().map(|cell| character(*cell, paint.is_none())).collect();
            match paint {
                Some(paint) if part[0].dots != 0 => text.push_str(&paint(part[0].series, &drawn)),
                _ => text.push_str(&drawn),
            }
        }
        lines.push(text.trim_end().to_owned());
    }
    let mut axis: Vec<char> = vec!['─'; columns];
    let mut labels = vec![' '; columns + margin + 2];
    for (place, text) in &steps.ticks {
        let column = (steps.fraction(*place) * (columns - 1) as f64).round() as usize;
        axis[column] = '┬';
        let length = text.chars().count();
        let start = (margin + 2 + column).saturating_sub(length / 2).min(labels.len().saturating_sub(length));
        // Each stands apart from the one before.
        if labels[start.saturating_sub(1)..].iter().all(|letter| *letter == ' ') {
            text.chars().zip(&mut labels[start..]).for_each(|(letter, place)| *place = letter);
        }
    }
    lines.push(format!("{:margin$} └{}", "", axis.into_iter().collect::<String>()));
    lines.push(labels.into_iter().collect::<String>().trim_end().to_owned());
    lines
}

fn character(cell: Cell, has_signs: bool) -> char {
    match (cell.dots, has_signs) {
        (0, _) => ' ',
        (_, true) => sign(cell.series),
        (dots, false) => char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '),
    }
}

/// Every dot between two (Bresenham's line).
fn line((mut x, mut y): (isize, isize), (x_end, y_end): (isize, isize), mut dot: impl FnMut(usize, usize)) {
    let (dx, dy) = ((x_end - x).abs(), -(y_end - y).abs());
    let (sx, sy) = ((x_end - x).signum(), (y_end - y).signum());
    let mut error = dx + dy;
    loop {
        dot(x as usize, y as usize);
        if (x, y) == (x_end, y_end) {
            return;
        }
        let doubled = 2 * error;
        if doubled >= dy {
            error += dy;
            x += sx;
        }
        if doubled <= dx {
            error += dx;
            y += sy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Series;

    #[test]
    fn a_falling_line_falls() {
        let points = (0..=10).map(|step| (f64::from(step), f64::from(10 - step))).collect();
        let series = vec![Series { label: "run".to_owned(), number: 0, points }];
        let chart = Chart { metric: "loss".to_owned(), series, is_log: false };
        let lines = draw(&chart, 32, None);
        assert_eq!(lines.len(), ROWS + 2);
        assert!(lines[0].starts_with("10 ┤••"), "{}", lines[0]);
        assert!(
            lines[ROWS - 1].starts_with(" 0 ┤ ") && lines[ROWS - 1].ends_with("••"),
            "{}",
            lines[ROWS - 1]
        );
        assert!(lines[ROWS].starts_with("   └┬─") && lines[ROWS].ends_with("─┬"), "{}", lines[ROWS]);
        assert_eq!(lines[ROWS + 1].split_whitespace().collect::<Vec<_>>(), ["0", "5", "10"]);
        let dots = draw(&chart, 32, Some(&|_, text| text.to_owned()));
        assert!(dots[0].starts_with("10 ┤⠑") || dots[0].starts_with("10 ┤⠓"), "{}", dots[0]);
        assert!(lines.iter().chain(&dots).all(|line| line.chars().count() <= 32), "{lines:?}");
    }

    #[test]
    fn runs_are_told_apart() {
        let chart = crate::plot::tests::chart();
        let signs = draw(&chart, 60, None).join("\n");
        assert!(signs.contains('•') && signs.contains('×'), "{signs}");
        let painted = draw(&chart, 60, Some(&|number, text| format!("<{number}>{text}</>"))).join("\n");
        assert!(painted.contains("<0>") && painted.contains("<1>"), "{painted}");
    }

    #[test]
    fn any_width_and_any_values_are_drawn() {
        let extremes = [(0.0, f64::MIN), (1.0, f64::MAX), (1e300, 0.0), (2.0, 5e-324)];
        for width in [0, 1, 25, 500] {
            for points in [vec![], vec![(3.0, 0.0)], extremes.to_vec()] {
                let series = vec![Series { label: "run".to_owned(), number: 9, points }];
                draw(&Chart { metric: "x".to_owned(), series, is_log: width == 25 }, width, None);
            }
        }
    }
}
