//! Pictures of metrics: lines over steps, one chart a metric, in a terminal or as SVG.

pub mod svg;
pub mod terminal;

/// One metric of some runs.
pub struct Chart {
    pub metric: String,
    pub series: Vec<Series>,
    /// Values are drawn by their powers of ten.
    pub is_log: bool,
}

/// The values of one run.
pub struct Series {
    /// What the run is called.
    pub label: String,
    /// The same run has the same number, and so the same colour, in every chart.
    pub number: usize,
    /// Step and value, in the order of steps; numbers only.
    pub points: Vec<(f64, f64)>,
}

/// What a chart spans, and where its axes are marked.
pub struct Scale {
    pub low: f64,
    pub high: f64,
    /// Place on the axis, and what stands there.
    pub ticks: Vec<(f64, String)>,
}

impl Chart {
    /// Where a value is on the axis; none for what no logarithm has.
    pub fn place(&self, value: f64) -> Option<f64> {
        let place = if self.is_log { value.log10() } else { value };
        place.is_finite().then_some(place)
    }

    /// The points of a run on the axes.
    pub fn places<'a>(&'a self, series: &'a Series) -> impl Iterator<Item = (f64, f64)> + 'a {
        series.points.iter().filter_map(|&(step, value)| Some((step, self.place(value)?)))
    }

    /// The axes of steps and of values; none when there is nothing to draw.
    pub fn scales(&self, ticks_x: usize, ticks_y: usize) -> Option<(Scale, Scale)> {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let span = (f64::INFINITY, f64::NEG_INFINITY);
            let (low, high) = values.fold(span, |(low, high), value| (low.min(value), high.max(value)));
            (low <= high).then_some((low, high))
        };
        let points = || self.series.iter().flat_map(|series| self.places(series));
        let steps = range(&mut points().map(|(step, _)| step))?;
        let values = range(&mut points().map(|(_, value)| value))?;
        Some((Scale::new(steps, ticks_x, false), Scale::new(values, ticks_y, self.is_log)))
    }
}

impl Scale {
    fn new((low, high): (f64, f64), ticks_max: usize, is_log: bool) -> Self {
        // A single value stands in the middle.
        let margin = match (low == high, is_log) {
            (false, _) => 0.0,
            (true, true) => 0.5,
            (true, false) if low == 0.0 => 1.0,
            (true, false) => low.abs() * 0.1,
        };
        let (low, high) = (low - margin, high + margin);
        let ticks_max = ticks_max.max(1);
        let ticks = if is_log { powers(low, high, ticks_max) } else { round(low, high, ticks_max) };
        Self {
            low,
            high,
            ticks: ticks.into_iter().map(|(place, value)| (place, crate::ui::number(value))).collect(),
        }
    }

    /// From 0 at the low end to 1 at the high one.
    pub fn fraction(&self, place: f64) -> f64 {
        ((place - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// Round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart. Each is its own place.
fn round(low: f64, high: f64, ticks_max: usize) -> Vec<(f64, f64)> {
    let raw = (high - low) / ticks_max as f64;
    let power = 10f64.powf(raw.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| *step >= raw * 0.999).unwrap_or(steps[3]);
    let first = (low / step - 1e-9).ceil();
    let places = (0..=ticks_max + 1).map(|number| (first + number as f64) * step);
    let places = places.take_while(|place| *place <= high + step * 1e-9);
    // Nothing of what subtraction leaves of zero.
    places
        .map(|place| if place.abs() < step * 1e-6 { 0.0 } else { place })
        .map(|place| (place, place))
        .collect()
}

/// The same where `low` and `high` are powers of ten: 1, 2 and 5 of each power, or the powers alone when these are many.
fn powers(low: f64, high: f64, ticks_max: usize) -> Vec<(f64, f64)> {
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let span = (last - first) as usize;
    let every = |factors: &[f64], apart: usize| {
        let powers = (first..=last).step_by(apart);
        let values = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        let places = values.map(|value| (value.log10(), value));
        places.filter(|(place, _)| (low - 1e-9..=high + 1e-9).contains(place)).collect::<Vec<_>>()
    };
    let fine = every(&[1.0, 2.0, 5.0], 1);
    match fine.len() {
        // Less than a factor of two: as on an even axis.
        0 | 1 => {
            let values = round(10f64.powf(low), 10f64.powf(high), ticks_max).into_iter();
            values.filter(|(_, value)| *value > 0.0).map(|(_, value)| (value.log10(), value)).collect()
        }
        count if count <= ticks_max + 1 => fine,
        _ => every(&[1.0], span.div_ceil(ticks_max).max(1)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two runs.
    pub(crate) fn chart() -> Chart {
        let series = |number: usize, label: &str, factor: f64| Series {
            label: label.to_owned(),
            number,
            points: (0..40).map(|step| (f64::from(step), factor * (-f64::from(step) / 10.0).exp())).collect(),
        };
        Chart {
            metric: "loss <train>".to_owned(),
            series: vec![series(0, "3eda7e8f3827", 2.0), series(1, "ff0000000000 \"a & b\"", 1.0)],
            is_log: false,
        }
    }

    #[test]
    fn axes_are_marked_at_round_numbers() {
        let check = |range, ticks, is_log, expected: &[&str]| {
            let scale = Scale::new(range, ticks, is_log);
            let shown: Vec<&str> = scale.ticks.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(shown, expected, "{range:?}");
        };
        check((0.0, 1.0), 5, false, &["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        check((0.13, 0.97), 5, false, &["0.2", "0.4", "0.6", "0.8"]);
        check((-3.0, 3.0), 4, false, &["-2", "0", "2"]);
        check((0.0, 199.0), 5, false, &["0", "50", "100", "150"]);
        check((5.0, 5.0), 4, false, &["4.5", "5", "5.5"]);
        check((0.0, 0.0), 2, false, &["-1", "0", "1"]);
        check((-2.0, 1.0), 4, true, &["0.01", "0.1", "1", "10"]);
        check((-1.0, 0.0), 4, true, &["0.1", "0.2", "0.5", "1"]);
        check((0.0, 12.0), 4, true, &["1", "1000", "1000000", "1e9", "1e12"]);
        check((0.1, 0.2), 4, true, &["1.3", "1.4", "1.5"]);
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let mut chart = chart();
        chart.series[0].points = vec![(0.0, 0.0), (1.0, -1.0)];
        chart.series.truncate(1);
        assert!(chart.scales(5, 5).is_some());
        chart.is_log = true;
        assert!(chart.scales(5, 5).is_none());
    }
}
