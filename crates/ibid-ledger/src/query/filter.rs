//! Conditions over runs: `learning_rate>0.1 and status==ok`.
//!
//! ```text
//! condition  = all ("or" all)*
//! all        = one ("and" one)*
//! one        = "not" one | "(" condition ")" | key [operator word]
//! operator   = == (or =), !=, <, <=, >, >=, ~ (contains, whatever the case), !~
//! key, word  = letters, digits and . _ - : / + @ % # , ^ *, or anything in '' or ""
//! ```
//!
//! `&&`, `||` and `!` may be written for `and`, `or` and `not`. A key alone asks whether a run has it. Numbers compare as
//! numbers, anything else as text, so that times compare as far as they are written: `started>=2026-03`. What a run does
//! not have is never less, equal or greater, so that only `!=`, `!~` and `not` hold for it.

use std::ops::Range;

use super::key::{Key, Names, UnknownKey, Value};
use crate::summary::Summary;

/// How deep parentheses and `not` may be.
const DEPTH_MAX: usize = 100;

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Condition);

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Has(Key),
    Compare(Key, Operator, Literal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    ContainsNot,
}

#[derive(Debug, Clone, PartialEq)]
struct Literal {
    text: String,
    /// In lower case.
    lower: String,
    /// When it reads as a number and was not quoted.
    number: Option<f64>,
}

/// What is wrong with a condition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidFilter {
    /// What.
    pub message: String,
    /// Bytes of the text that it is about.
    pub span: Range<usize>,
    /// The key that nobody has, and all that there are.
    pub unknown: Option<UnknownKey>,
}

impl Filter {
    /// Reads a condition over runs that have `names`.
    pub fn parse(text: &str, names: &Names) -> Result<Self, InvalidFilter> {
        let tokens = lex(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0, end: text.len(), names };
        let condition = parser.any(0)?;
        match parser.tokens.get(parser.at) {
            None => Ok(Self(condition)),
            Some(token) => Err(InvalidFilter::new("expected `and`, `or` or the end", token.span.clone())),
        }
    }

    /// Whether it holds for a run.
    pub fn holds<S: AsRef<str>>(&self, run: &Summary<S>) -> bool {
        self.0.holds(run)
    }
}

impl InvalidFilter {
    fn new(message: impl Into<String>, span: Range<usize>) -> Self {
        Self { message: message.into(), span, unknown: None }
    }
}

impl Condition {
    fn holds<S: AsRef<str>>(&self, run: &Summary<S>) -> bool {
        match self {
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(run)),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(run)),
            Self::Not(condition) => !condition.holds(run),
            Self::Has(key) => key.value(run) != Value::None,
            Self::Compare(key, operator, literal) => operator.holds(&key.value(run), literal),
        }
    }
}

impl Operator {
    fn holds(self, value: &Value, literal: &Literal) -> bool {
        match self {
            Self::NotEqual => return !Self::Equal.holds(value, literal),
            Self::ContainsNot => return !Self::Contains.holds(value, literal),
            _ => {}
        }
        match value {
            Value::None => false,
            Value::List(texts) => texts.iter().any(|text| self.holds(&Value::Text(text), literal)),
            value if self == Self::Contains => value.text().to_lowercase().contains(&literal.lower),
            value => {
                let order = match (value.number(), literal.number) {
                    (Some(value), Some(literal)) => value.partial_cmp(&literal),
                    _ => Some(value.text().as_str().cmp(&literal.text)),
                };
                order.is_some_and(|order| match self {
                    Self::Less => order.is_lt(),
                    Self::LessOrEqual => order.is_le(),
                    Self::Greater => order.is_gt(),
                    Self::GreaterOrEqual => order.is_ge(),
                    _ => order.is_eq(),
                })
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Word { text: String, quoted: bool },
    Operator(Operator),
    And,
    Or,
    Not,
    Open,
    Close,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    kind: Kind,
    span: Range<usize>,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "._-:/+@%#,^*".contains(c)
}

fn lex(text: &str) -> Result<Vec<Token>, InvalidFilter> {
    const SIGNS: [(&str, Kind); 14] = [
        ("==", Kind::Operator(Operator::Equal)),
        ("!=", Kind::Operator(Operator::NotEqual)),
        ("!~", Kind::Operator(Operator::ContainsNot)),
        ("<=", Kind::Operator(Operator::LessOrEqual)),
        (">=", Kind::Operator(Operator::GreaterOrEqual)),
        ("&&", Kind::And),
        ("||", Kind::Or),
        ("=", Kind::Operator(Operator::Equal)),
        ("<", Kind::Operator(Operator::Less)),
        (">", Kind::Operator(Operator::Greater)),
        ("~", Kind::Operator(Operator::Contains)),
        ("!", Kind::Not),
        ("(", Kind::Open),
        (")", Kind::Close),
    ];
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (kind, length) = if matches!(first, '"' | '\'') {
            let Some(end) = rest[1..].find(first) else {
                return Err(InvalidFilter::new(format!("the `{first}` is never closed"), at..text.len()));
            };
            (Kind::Word { text: rest[1..=end].to_owned(), quoted: true }, end + 2)
        } else if let Some((sign, kind)) = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            (kind.clone(), sign.len())
        } else if is_word(first) {
            let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            let kind = match word {
                "and" => Kind::And,
                "or" => Kind::Or,
                "not" => Kind::Not,
                word => Kind::Word { text: word.to_owned(), quoted: false },
            };
            (kind, word.len())
        } else {
            let span = at..at + first.len_utf8();
            return Err(InvalidFilter::new(format!("`{first}` means nothing here"), span));
        };
        tokens.push(Token { kind, span: at..at + length });
        at += length;
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    end: usize,
    names: &'a Names<'a>,
}

impl<'a> Parser<'a> {
    fn next_is(&mut self, kind: &Kind) -> bool {
        let is = self.tokens.get(self.at).is_some_and(|token| token.kind == *kind);
        self.at += usize::from(is);
        is
    }

    fn any(&mut self, depth: usize) -> Result<Condition, InvalidFilter> {
        let mut conditions = vec![self.all(depth)?];
        while self.next_is(&Kind::Or) {
            conditions.push(self.all(depth)?);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Condition::Any(conditions) })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, InvalidFilter> {
        let mut conditions = vec![self.one(depth)?];
        while self.next_is(&Kind::And) {
            conditions.push(self.one(depth)?);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Condition::All(conditions) })
    }

    fn one(&mut self, depth: usize) -> Result<Condition, InvalidFilter> {
        let Some(token) = self.tokens.get(self.at) else {
            return Err(self.ended("expected a condition such as `status==ok`"));
        };
        if depth > DEPTH_MAX {
            return Err(InvalidFilter::new("it is nested too deeply", token.span.clone()));
        }
        self.at += 1;
        match &token.kind {
            Kind::Not => Ok(Condition::Not(Box::new(self.one(depth + 1)?))),
            Kind::Open => {
                let condition = self.any(depth + 1)?;
                if self.next_is(&Kind::Close) {
                    return Ok(condition);
                }
                Err(match self.tokens.get(self.at) {
                    Some(token) => InvalidFilter::new("expected `and`, `or` or `)`", token.span.clone()),
                    None => InvalidFilter::new("this `(` is never closed", token.span.clone()),
                })
            }
            Kind::Word { text, .. } => self.comparison(text, &token.span),
            _ => Err(InvalidFilter::new("expected a condition such as `status==ok`", token.span.clone())),
        }
    }

    fn comparison(&mut self, key: &str, span: &Range<usize>) -> Result<Condition, InvalidFilter> {
        let key = self.names.resolve(key).map_err(|error| InvalidFilter {
            message: error.to_string(),
            span: span.clone(),
            unknown: Some(error),
        })?;
        let Some(Token { kind: Kind::Operator(operator), .. }) = self.tokens.get(self.at) else {
            return Ok(Condition::Has(key));
        };
        self.at += 1;
        match self.tokens.get(self.at) {
            Some(Token { kind: Kind::Word { text, quoted }, .. }) => {
                self.at += 1;
                let number = if *quoted { None } else { text.parse().ok() };
                let literal = Literal { text: text.clone(), lower: text.to_lowercase(), number };
                Ok(Condition::Compare(key, *operator, literal))
            }
            Some(token) => Err(InvalidFilter::new("expected a value to compare with", token.span.clone())),
            None => Err(self.ended("expected a value to compare with")),
        }
    }

    fn ended(&self, message: &str) -> InvalidFilter {
        InvalidFilter::new(message, self.end..self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Status;
    use crate::summary::{MetricSummary, Standing};

    fn run() -> Summary {
        let mut run = crate::summary::tests::summary("3eda7e8f3827");
        run.parameters = [("learning_rate", "0.14"), ("optimizer", "Adam"), ("clash", "1"), ("flag", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        run.metrics = [("accuracy", 0.9), ("val/loss", 0.5), ("clash", 2.0), ("broken", f64::NAN)]
            .map(|(name, last)| {
                (name.to_owned(), MetricSummary((!last.is_nan()).then_some(last), Some(0.1), Some(0.95)))
            })
            .into_iter()
            .collect();
        run.standing = Standing::Known(Status::Ok);
        run.started = "2026-03-05T10:11:12.345Z".to_owned();
        run.exit_code = Some(0);
        run.image = vec!["sha256:7dbb".to_owned(), "mnist:latest".to_owned()];
        run.tags = vec!["baseline".to_owned(), "paper".to_owned()];
        run
    }

    #[test]
    fn conditions_hold_or_not() {
        let runs = [run()];
        let names = Names::of(&runs);
        let check = |text: &str, expected: bool| {
            let filter = Filter::parse(text, &names).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.holds(&runs[0]), expected, "{text}");
        };
        check("learning_rate>0.1 and status==ok", true);
        check("learning_rate > 0.1 and status != ok", false);
        check("learning_rate==.14", true);
        check("learning_rate=1.4e-1", true);
        check("learning_rate<0.14", false);
        check("learning_rate<=0.14", true);
        check("learning_rate>=9", false);
        check("learning_rate=='.14'", false);
        check("parameters.learning_rate < 1", true);
        check("accuracy>=0.9", true);
        check("metrics.accuracy.max > 0.94 && metrics.accuracy.min = 0.1", true);
        check("val/loss < 1", true);
        check("metrics.clash==2 and parameters.clash==1", true);
        check("optimizer ~ ada", true);
        check("optimizer !~ sgd", true);
        check("optimizer == adam", false);
        check("flag", true);
        check("signal", false);
        check("not signal", true);
        check("signal == SIGKILL", false);
        check("signal != SIGKILL", true);
        check("started >= 2026-03 and started < 2026-03-06", true);
        check("started > 2026-03-05T11", false);
        check("code==0", true);
        check("image ~ 7dbb and image == mnist:latest", true);
        check("tag == paper", true);
        check("tag != paper", false);
        check("tag != other", true);
        check("note == x", false);
        // No number is greater, smaller or equal.
        check("broken > 0 or broken < 0 or broken == 0", false);
        check("broken != 0", true);
        // `and` binds closer than `or`, `not` closer than both.
        check("status==ok or status==failed and code==1", true);
        check("(status==ok or status==failed) and code==1", false);
        check("not status==failed and code==0", true);
        check("!(status==ok)", false);
        check("status == \"ok\"", true);
        check("id ~ 3eda", true);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let runs = [run()];
        let names = Names::of(&runs);
        let check = |text: &str, message: &str, place: &str| {
            let error = Filter::parse(text, &names).expect_err(text);
            assert_eq!((error.message.as_str(), &text[error.span]), (message, place), "{text}");
        };
        check("learning_rat>0.1", "no run has `learning_rat`", "learning_rat");
        check(
            "clash>1",
            "`clash` is a parameter and a metric: write `parameters.clash` or `metrics.clash`",
            "clash",
        );
        check("status==", "expected a value to compare with", "");
        check("status== and code==1", "expected a value to compare with", "and");
        check("", "expected a condition such as `status==ok`", "");
        check("== 3", "expected a condition such as `status==ok`", "==");
        check("(status==ok", "this `(` is never closed", "(");
        check("(status==ok code==1)", "expected `and`, `or` or `)`", "code");
        check("status==ok)", "expected `and`, `or` or the end", ")");
        check("status==ok code==1", "expected `and`, `or` or the end", "code");
        check("status=='ok", "the `'` is never closed", "'ok");
        check("status==ok; x", "`;` means nothing here", ";");
        check("metrics.learning_rate>1", "no run has `metrics.learning_rate`", "metrics.learning_rate");
        let deep = format!("{}status==ok{}", "(".repeat(5000), ")".repeat(5000));
        let error = Filter::parse(&deep, &names).expect_err("too deep");
        assert_eq!(error.message, "it is nested too deeply");
    }
}
