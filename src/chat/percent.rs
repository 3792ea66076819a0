//! Python's operator `%`.

use crate::chat::{
    arguments::{pay, refusal, whole},
    filters::float,
    print,
};
use minijinja::{Error, State, Value, value::ValueKind};

/// Python's operator `%`: it formats values into a text, and is what remains of a division of numbers.
pub fn remainder(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(pattern) = left.as_str() {
        return format(state, pattern, right);
    }
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return Err(refusal("the operator % takes two numbers, or a text and values"));
    }
    if !right.is_true() {
        return Err(refusal("a number cannot be divided by zero"));
    }
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    // What remains has the sign of the divisor.
    if is_whole(left) && is_whole(right) {
        let (left, right) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let rest = left.wrapping_rem(right);
        return Ok(Value::from(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }));
    }
    let (left, right) = (float(left)?.unwrap_or(f64::NAN), float(right)?.unwrap_or(f64::NAN));
    let rest = left % right;
    let rest = if rest != 0. && (rest < 0.) != (right < 0.) { rest + right } else { rest };
    Ok(Value::from(if rest == 0. { rest.copysign(right) } else { rest }))
}

/// Formats values into a text with places such as `%s`, `%5.1f`, `%*d` and `%(name)r`. minijinja's filter of
/// that name fills those for numbers.
fn format(state: &mut State, pattern: &str, values: &Value) -> Result<Value, Error> {
    let mut given = match values.is_tuple() {
        true => values.try_iter()?.collect(),
        false => vec![values.clone()],
    }
    .into_iter();
    let mut next = || {
        given.next().ok_or_else(|| refusal("a text is formatted with fewer values than it has places for"))
    };
    let (mut places, mut fillings) = (String::new(), Vec::new());
    let (mut rest, mut names_values) = (pattern, false);
    while let Some((before, place)) = rest.split_once('%') {
        places.push_str(before);
        let start = places.len();
        places.push('%');
        let (named, mut place) = match place.strip_prefix('(').and_then(|place| place.split_once(')')) {
            Some((name, place)) => (Some(named(values, name)?), place),
            None => (None, place),
        };
        let kind = loop {
            let c = place.chars().next().ok_or_else(|| refusal("a text to format ends within a place"))?;
            place = &place[c.len_utf8()..];
            match c {
                '#' | '0'..='9' | '-' | ' ' | '+' | '.' => places.push(c),
                '*' => places.push_str(&whole(&next()?)?.to_string()),
                'h' | 'l' | 'L' => {}
                kind => break kind,
            }
        };
        rest = place;
        names_values |= named.is_some();
        if kind == '%' {
            places.push('%');
            continue;
        }
        let value = named.map_or_else(&mut next, Ok)?;
        let text = match kind {
            's' => Some(print::printed(&value)?),
            'r' => Some(print::represented(&value)?),
            _ => None,
        };
        if let Some(text) = text {
            let text = set_in(state, &places.split_off(start), &text)?;
            places.push_str(&text.replace('%', "%%"));
            continue;
        }
        let is_whole = matches!(kind, 'd' | 'i' | 'u');
        places.push(if is_whole { 'd' } else { kind });
        fillings.push(if is_whole { truncated(value) } else { value });
    }
    places.push_str(rest);
    // What is no tuple, and has items itself, need not be used.
    let has_items = matches!(values.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Undefined);
    if given.next().is_some() && !names_values && (values.is_tuple() || !has_items) {
        return Err(refusal("a text is formatted with more values than it has places for"));
    }
    state.apply_filter("format", &[vec![Value::from(places)], fillings].concat())
}

/// A text in a place such as `%-5.2s`: its first characters, as many as the number after the point says, and
/// blanks up to the number before it.
fn set_in(state: &State, place: &str, text: &str) -> Result<String, Error> {
    let numbers = place.trim_start_matches(['%', '#', '0', '-', ' ', '+']);
    let (width, most) = numbers.split_once('.').map_or((numbers, None), |(width, most)| (width, Some(most)));
    let number = |digits: &str| if digits.is_empty() { 0 } else { digits.parse().unwrap_or(usize::MAX) };
    let text: String = text.chars().take(most.map_or(usize::MAX, number)).collect();
    let blanks = number(width).saturating_sub(text.chars().count());
    pay(state, blanks)?;
    let blanks = " ".repeat(blanks);
    Ok(if place.contains('-') { text + &blanks } else { blanks + &text })
}

/// The value that a place such as `%(name)s` asks for.
fn named(values: &Value, name: &str) -> Result<Value, Error> {
    let value = values.get_item(&Value::from(name)).ok().filter(|value| !value.is_undefined());
    value.ok_or_else(|| refusal(format!("a text is formatted with {name}, which is not among the values")))
}

/// A number without its fraction; anything else as it is.
fn truncated(value: Value) -> Value {
    match f64::try_from(value.clone()) {
        Ok(number) if value.kind() == ValueKind::Number && !value.is_integer() && number.abs() < 1e38 => {
            Value::from(number as i128)
        }
        _ => value,
    }
}
