//! Charts as SVG, and as a page of HTML that holds them: one file that needs nothing else.

use std::fmt::Write as _;

use super::{Chart, Series};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// Height of a line of the legend.
const LEGEND: f64 = 20.0;
/// Colours that people with any kind of sight tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// From the eighth run on, lines are broken.
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"6 3\"", " stroke-dasharray=\"2 3\""];

/// All charts, one below the other.
pub fn document(charts: &[Chart]) -> String {
    let legend = legend(charts);
    let height = HEIGHT * charts.len() as f64 + LEGEND * legend.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (number, chart) in charts.iter().enumerate() {
        draw(&mut svg, chart, HEIGHT * number as f64);
    }
    for (line, series) in legend.into_iter().enumerate() {
        let y = HEIGHT * charts.len() as f64 + LEGEND * line as f64 + 6.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" {}/><text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + 28.0,
            stroke(series.number),
            LEFT + 36.0,
            y + 4.0,
            escape(&series.label)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A page with the charts and a table of the runs: a head, and rows of cells.
pub fn page(title: &str, charts: &[Chart], head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let title = escape(title);
    let table: String = rows.iter().map(|row| line(row, "td")).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\n\
         body {{ font-family: sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222; background: #fff }}\n\
         svg {{ max-width: 100%; height: auto }}\n\
         .wide {{ overflow-x: auto }}\n\
         table {{ border-collapse: collapse; font-size: 0.85em }}\n\
         th, td {{ border-bottom: 1px solid #ccc; padding: 0.3em 0.8em 0.3em 0; text-align: left; white-space: nowrap }}\n\
         </style>\n</head>\n<body>\n<h1>{title}</h1>\n{}<div class=\"wide\"><table>\n<thead>\n{}</thead>\n<tbody>\n{table}</tbody>\n</table></div>\n\
         </body>\n</html>\n",
        document(charts),
        line(head, "th"),
    )
}

/// Each run once, in the order of their numbers.
fn legend(charts: &[Chart]) -> Vec<&Series> {
    let mut series: Vec<&Series> = charts.iter().flat_map(|chart| &chart.series).collect();
    series.sort_by_key(|series| series.number);
    series.dedup_by_key(|series| series.number);
    series
}

fn draw(svg: &mut String, chart: &Chart, top: f64) {
    let _ = writeln!(svg, "<g transform=\"translate(0 {top})\">");
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        TOP - 14.0,
        escape(&chart.metric)
    );
    if let Some((steps, values)) = chart.scales(8, 6) {
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x = |step: f64| LEFT + steps.fraction(step) * width;
        let y = |value: f64| TOP + (1.0 - values.fraction(value)) * height;
        for (place, text) in &values.ticks {
            let y = y(*place);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444444\">{text}</text>",
                LEFT + width,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let bottom = TOP + height;
        for (place, text) in &steps.ticks {
            let x = x(*place);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{bottom}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#888888\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#444444\">{text}</text>",
                bottom + 5.0,
                bottom + 18.0
            );
        }
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\" stroke=\"#888888\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">step</text>",
            LEFT + width,
            LEFT + width,
            bottom + 34.0
        );
        for series in &chart.series {
            let points = thinned(chart.places(series).map(|(step, value)| (x(step), y(value))));
            let title = format!("<title>{}</title>", escape(&series.label));
            if let [(x, y)] = points[..] {
                let colour = COLOURS[series.number % COLOURS.len()];
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\">{title}</circle>"
                );
                continue;
            }
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke-linejoin=\"round\" {} points=\"{}\">{title}</polyline>",
                stroke(series.number),
                path.join(" ")
            );
        }
    }
    svg.push_str("</g>\n");
}

fn stroke(number: usize) -> String {
    let dashes = DASHES[number / COLOURS.len() % DASHES.len()];
    format!("stroke=\"{}\" stroke-width=\"1.8\"{dashes}", COLOURS[number % COLOURS.len()])
}

/// Of the points in each half unit of width, those that a line through all of them would show: first, lowest, highest, last.
fn thinned(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let all: Vec<(f64, f64)> = points.collect();
    let unit = |point: &(f64, f64)| (point.0 * 2.0).floor();
    let mut kept = Vec::new();
    for part in all.chunk_by(|a, b| unit(a) == unit(b)) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let extremes =
            [part.first(), part.iter().min_by(by_height), part.iter().max_by(by_height), part.last()];
        let mut extremes: Vec<(f64, f64)> = extremes.into_iter().flatten().copied().collect();
        extremes[1..3].sort_by(|a, b| a.0.total_cmp(&b.0));
        extremes.dedup();
        kept.extend(extremes);
    }
    kept
}

/// Text inside of an element or between quotes. Characters that XML does not have become spaces.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::chart;

    #[test]
    fn names_are_text_and_nothing_else() {
        let svg = document(&[chart()]);
        assert!(svg.contains("loss &lt;train&gt;"), "{svg}");
        assert!(svg.contains("ff0000000000 &quot;a &amp; b&quot;"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        let hostile = ["<script>alert(1)</script>".to_owned(), "a\u{0}b".to_owned()];
        let page = page("<x>", &[chart()], &hostile, &[hostile.to_vec()]);
        assert!(!page.contains("<script") && !page.contains('\0') && !page.contains("<x>"), "{page}");
    }

    #[test]
    fn many_points_become_few_that_look_the_same() {
        let points =
            (0..100_000).map(|n| (f64::from(n) / 1000.0, if n == 50_123 { 9.0 } else { f64::from(n % 7) }));
        let kept = thinned(points);
        assert!(kept.len() < 1000, "{}", kept.len());
        assert!(kept.iter().any(|point| point.1 == 9.0));
        assert_eq!((kept.first(), kept.last()), (Some(&(0.0, 0.0)), Some(&(99.999, 4.0))));
        assert!(kept.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }
}
