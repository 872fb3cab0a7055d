//! By how much a number may differ from the first time and still count as the same.

use std::fmt;
use std::str::FromStr;

/// A greatest difference: `±0.01` of the number itself, or `±0.5%` of the first value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// In the number's own unit.
    Absolute(f64),
    /// As a part of the first value: 0.005 is 0.5 %.
    Relative(f64),
}

/// Text that is no tolerance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no tolerance: expected `±0.01` or `±0.5%`")]
pub struct InvalidTolerance {
    /// What was read.
    pub text: String,
}

/// So that `±0.5%` of 0.9 takes in 0.9045, though neither number is exact in binary.
const ROUNDING: f64 = 1.0 + 1e-9;

impl Tolerance {
    /// Whether `second` counts as `first`. Not a number is only ever the same as itself, and so is infinity.
    pub fn allows(self, first: f64, second: f64) -> bool {
        if first == second || first.is_nan() && second.is_nan() {
            return true;
        }
        let greatest = match self {
            Self::Absolute(value) => value,
            Self::Relative(part) => part * first.abs(),
        };
        // False for whatever is not finite, but infinity is within half a percent of infinity.
        first.is_finite() && (second - first).abs() <= greatest * ROUNDING
    }
}

impl FromStr for Tolerance {
    type Err = InvalidTolerance;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidTolerance { text: text.to_owned() };
        let number = text.trim();
        let number = ["±", "+-", "+/-"].iter().find_map(|sign| number.strip_prefix(sign)).unwrap_or(number);
        let (number, is_relative) = match number.strip_suffix('%') {
            Some(number) => (number, true),
            None => (number, false),
        };
        let number = number.trim();
        if !number.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return Err(invalid());
        }
        let value: f64 = number.parse().map_err(|_| invalid())?;
        if !value.is_finite() {
            return Err(invalid());
        }
        Ok(if is_relative { Self::Relative(value / 100.0) } else { Self::Absolute(value) })
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(value) => write!(f, "±{value}"),
            Self::Relative(part) => write!(f, "±{}%", part * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_read_and_written() {
        let check = |text: &str, expected: Option<&str>| {
            let found = text.parse::<Tolerance>().ok().map(|tolerance| tolerance.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("±0.5%", Some("±0.5%"));
        check("±0.01", Some("±0.01"));
        check("± 1e-6", Some("±0.000001"));
        check("+-2 %", Some("±2%"));
        check("+/-.5", Some("±0.5"));
        check("3", Some("±3"));
        check("", None);
        check("±", None);
        check("-1", None);
        check("±-1", None);
        check("inf", None);
        check("1e999", None);
        check("nan", None);
        check("1 percent", None);
    }

    #[test]
    fn numbers_are_compared() {
        let check = |tolerance: &str, first: f64, second: f64, expected: bool| {
            let tolerance: Tolerance = tolerance.parse().expect(tolerance);
            assert_eq!(tolerance.allows(first, second), expected, "{tolerance} {first} {second}");
        };
        check("0.01", 1.0, 1.01, true);
        check("0.01", 1.0, 0.99, true);
        check("0.01", 1.0, 1.011, false);
        check("0.5%", 0.9, 0.9045, true);
        check("0.5%", 0.9, 0.9046, false);
        check("0.5%", -200.0, -199.0, true);
        check("0.5%", 0.0, 1e-300, false);
        check("0%", 0.0, -0.0, true);
        check("5%", f64::NAN, f64::NAN, true);
        check("5%", f64::NAN, 1.0, false);
        check("5%", 1.0, f64::NAN, false);
        check("5%", f64::INFINITY, f64::INFINITY, true);
        check("5%", f64::INFINITY, 1.0, false);
        check("5%", f64::INFINITY, f64::NEG_INFINITY, false);
        check("5%", 1.0, f64::INFINITY, false);
    }
}
