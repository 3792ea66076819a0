//! The methods of Python's texts.

use crate::chat::{
    arguments::{bind, optional_whole, pay, refusal, required, text, whole},
    print,
};
use minijinja::{
    Error, ErrorKind, State, Value,
    formatting::{FormatStyle, format},
    value::{StringInput, Tuple},
};

/// Calls the method `name` of the text `of`.
///
/// # Errors
/// Of the kind UnknownMethod where texts have no such method; otherwise as Python refuses the arguments.
pub fn call_method(state: &State, of: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let s = text(of)?;
    pay(state, s.len())?;
    Ok(match name {
        "upper" => without(arguments, s.to_uppercase())?,
        "lower" => without(arguments, s.to_lowercase())?,
        "casefold" => without(arguments, s.to_uppercase().to_lowercase().replace('ς', "σ"))?,
        "capitalize" => without(arguments, capitalize(state, s)?)?,
        "title" => without(arguments, title(state, s)?)?,
        "swapcase" => without(arguments, s.chars().flat_map(swapped).collect::<String>())?,
        "isalnum" => without(arguments, all(s, char::is_alphanumeric))?,
        "isalpha" => without(arguments, all(s, char::is_alphabetic))?,
        "isascii" => without(arguments, s.is_ascii())?,
        "isdecimal" | "isdigit" | "isnumeric" => without(arguments, all(s, char::is_numeric))?,
        "isidentifier" => {
            let starts = s.starts_with(|c: char| c == '_' || c.is_alphabetic());
            without(arguments, starts && s.chars().all(|c| c == '_' || c.is_alphanumeric()))?
        }
        "islower" => without(arguments, is_lower(s))?,
        "isprintable" => without(arguments, s.chars().all(print::is_printable))?,
        "isspace" => without(arguments, all(s, is_space))?,
        "istitle" => without(arguments, is_title(s))?,
        "isupper" => without(arguments, is_upper(s))?,
        "strip" => stripped(s, arguments, true, true)?,
        "lstrip" => stripped(s, arguments, true, false)?,
        "rstrip" => stripped(s, arguments, false, true)?,
        "split" | "rsplit" => split(s, arguments, name == "rsplit")?,
        "splitlines" => {
            let [keep_ends] = bind(arguments, ["keepends"])?;
            let keep_ends = keep_ends.is_some_and(|value| value.is_true());
            lines(s)
                .into_iter()
                .map(|(line, end)| if keep_ends { [line, end].concat() } else { line.to_owned() })
                .collect()
        }
        "partition" | "rpartition" => partition(s, arguments, name == "rpartition")?,
        "startswith" => has_affix(s, arguments, |s, affix| s.starts_with(affix))?,
        "endswith" => has_affix(s, arguments, |s, affix| s.ends_with(affix))?,
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(arguments, ["affix"])?;
            let affix = required(affix)?;
            let affix = text(&affix)?;
            let rest = if name == "removeprefix" { s.strip_prefix(affix) } else { s.strip_suffix(affix) };
            Value::from(rest.unwrap_or(s))
        }
        "find" | "index" => found(s, arguments, name == "index", |s, what| s.find(what))?,
        "rfind" | "rindex" => found(s, arguments, name == "rindex", |s, what| s.rfind(what))?,
        "count" => {
            let [what, start, end] = bind(arguments, ["sub", "start", "end"])?;
            let what = required(what)?;
            let what = text(&what)?;
            Value::from(
                window(s, start.as_ref(), end.as_ref())?.map_or(0, |(_, part)| part.matches(what).count()),
            )
        }
        "replace" => replace(state, s, arguments)?,
        "join" => join(state, s, arguments)?,
        "format" => {
            // Widths are the only numbers of a pattern that can be large.
            let numbers = s.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            let width = |digits: &str| digits.parse().unwrap_or(usize::MAX);
            pay(state, numbers.map(width).fold(0, usize::saturating_add))?;
            Value::from(format(FormatStyle::StrFormat, s, arguments)?)
        }
        "ljust" => padded(state, s, arguments, |_| 0)?,
        "rjust" => padded(state, s, arguments, |missing| missing)?,
        "center" => {
            // Python puts the odd character on the left only if the width is odd, too.
            let width_of = |missing: usize| missing + s.chars().count();
            padded(state, s, arguments, |missing| missing / 2 + (missing & width_of(missing) & 1))?
        }
        "zfill" => {
            let [width] = bind(arguments, ["width"])?;
            let (sign, digits) = s.split_at(s.starts_with(['+', '-']).into());
            let zeros = missing(s, whole(&required(width)?)?);
            pay(state, zeros)?;
            Value::from([sign, &"0".repeat(zeros), digits].concat())
        }
        "expandtabs" => expand_tabs(state, s, arguments)?,
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

/// What Python's `str.isspace` says of a character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What Python's `str.islower` says.
pub fn is_lower(s: &str) -> bool {
    s.chars().any(char::is_lowercase) && !s.chars().any(|c| is_cased(c) && !c.is_lowercase())
}

/// What Python's `str.isupper` says.
pub fn is_upper(s: &str) -> bool {
    s.chars().any(char::is_uppercase) && !s.chars().any(|c| is_cased(c) && !c.is_uppercase())
}

/// The lines of a text, each with its end.
pub fn lines(s: &str) -> Vec<(&str, &str)> {
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) =
        rest.find(|c| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'))
    {
        let (line, tail) = rest.split_at(at);
        let end = if tail.starts_with("\r\n") { 2 } else { tail.chars().next().map_or(0, char::len_utf8) };
        lines.push((line, &tail[..end]));
        rest = &tail[end..];
    }
    if !rest.is_empty() {
        lines.push((rest, ""));
    }
    lines
}

/// A text in the middle of `width` characters, or on the side that `before` puts it by the count of spaces.
fn padded(
    state: &State,
    s: &str,
    arguments: &[Value],
    before: impl Fn(usize) -> usize,
) -> Result<Value, Error> {
    let [width, fill] = bind(arguments, ["width", "fillchar"])?;
    let fill = fill.unwrap_or_else(|| Value::from(" "));
    let fill = text(&fill)?;
    if fill.chars().count() != 1 {
        return Err(refusal("the fill character must be one character"));
    }
    let missing = missing(s, whole(&required(width)?)?);
    pay(state, missing.saturating_mul(fill.len()))?;
    let before = before(missing);
    Ok(Value::from([&fill.repeat(before), s, &fill.repeat(missing - before)].concat()))
}

/// How many characters a text lacks to be as wide as `width`.
fn missing(s: &str, width: i64) -> usize {
    usize::try_from(width).unwrap_or(0).saturating_sub(s.chars().count())
}

fn without(arguments: &[Value], result: impl Into<Value>) -> Result<Value, Error> {
    let [] = bind(arguments, [])?;
    Ok(result.into())
}

fn all(s: &str, is: fn(char) -> bool) -> bool {
    !s.is_empty() && s.chars().all(is)
}

/// Letters of the third case, which only begin a word, are written as two letters.
fn is_third_case(c: char) -> bool {
    let is_latin = matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ');
    let is_greek = matches!(u32::from(c), 0x1f88..=0x1f8f | 0x1f98..=0x1f9f | 0x1fa8..=0x1faf);
    is_latin || is_greek || matches!(c, '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_third_case(c)
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn capitalize(state: &State, s: &str) -> Result<Value, Error> {
    Ok(minijinja::filters::capitalize(StringInput::new(state, &Value::from(s))?))
}

/// Each run of letters that have cases becomes a word with one capital.
fn title(state: &State, s: &str) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = s;
    while !rest.is_empty() {
        let (between, tail) = rest.split_at(rest.find(is_cased).unwrap_or(rest.len()));
        let (word, tail) = tail.split_at(tail.find(|c| !is_cased(c)).unwrap_or(tail.len()));
        out.push_str(between);
        out.push_str(text(&capitalize(state, word)?)?);
        rest = tail;
    }
    Ok(out)
}

fn is_title(s: &str) -> bool {
    let mut in_word = false;
    for c in s.chars() {
        if is_cased(c) && in_word != c.is_lowercase() {
            return false;
        }
        in_word = is_cased(c);
    }
    s.chars().any(is_cased)
}

fn stripped(s: &str, arguments: &[Value], left: bool, right: bool) -> Result<Value, Error> {
    let [chars] = bind(arguments, ["chars"])?;
    let chars = chars.filter(|chars| !chars.is_none());
    let chars = chars.as_ref().map(text).transpose()?;
    let is_stripped = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let s = if left { s.trim_start_matches(is_stripped) } else { s };
    Ok(Value::from(if right { s.trim_end_matches(is_stripped) } else { s }))
}

fn split(s: &str, arguments: &[Value], from_right: bool) -> Result<Value, Error> {
    let [separator, most] = bind(arguments, ["sep", "maxsplit"])?;
    let most =
        optional_whole(most.as_ref())?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let separator = separator.filter(|separator| !separator.is_none());
    let Some(separator) = separator.as_ref().map(text).transpose()? else {
        return Ok(words(s, most, from_right));
    };
    if separator.is_empty() {
        return Err(refusal("a text cannot be split at an empty text"));
    }
    if from_right {
        let mut parts: Vec<&str> = s.rsplitn(most.saturating_add(1), separator).collect();
        parts.reverse();
        return Ok(parts.into_iter().collect());
    }
    Ok(s.splitn(most.saturating_add(1), separator).collect())
}

/// What whitespace separates, at most at `most` places; the remainder keeps the whitespace at its other end.
fn words(s: &str, most: usize, from_right: bool) -> Value {
    let mut words = Vec::new();
    let trimmed = |s| {
        if from_right { str::trim_end_matches(s, is_space) } else { str::trim_start_matches(s, is_space) }
    };
    let mut rest = trimmed(s);
    while !rest.is_empty() {
        let at = if from_right {
            rest.char_indices().rfind(|(_, c)| is_space(*c)).map(|(at, c)| at + c.len_utf8())
        } else {
            rest.find(is_space)
        };
        match at.filter(|_| words.len() < most) {
            Some(at) => {
                let (left, right) = rest.split_at(at);
                let (word, others) = if from_right { (right, left) } else { (left, right) };
                words.push(word);
                rest = trimmed(others);
            }
            None => {
                words.push(rest);
                break;
            }
        }
    }
    if from_right {
        words.reverse();
    }
    words.into_iter().collect()
}

fn partition(s: &str, arguments: &[Value], from_right: bool) -> Result<Value, Error> {
    let [separator] = bind(arguments, ["sep"])?;
    let separator = required(separator)?;
    let separator = text(&separator)?;
    if separator.is_empty() {
        return Err(refusal("a text cannot be split at an empty text"));
    }
    let split = if from_right { s.rsplit_once(separator) } else { s.split_once(separator) };
    let parts = match split {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// The part of a text between two places that count characters, or from the end if negative, and the byte at
/// which it begins; none where it begins after the text or after its own end.
fn window<'a>(
    s: &'a str,
    start: Option<&Value>,
    end: Option<&Value>,
) -> Result<Option<(usize, &'a str)>, Error> {
    let length = s.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at.saturating_add(length)).max(0) } else { at };
    let start = place(optional_whole(start)?.unwrap_or(0));
    let end = place(optional_whole(end)?.unwrap_or(length)).min(length);
    let byte = |at: i64| s.char_indices().nth(at as usize).map_or(s.len(), |(byte, _)| byte);
    Ok((start <= end).then(|| (byte(start), &s[byte(start)..byte(end)])))
}

fn has_affix(s: &str, arguments: &[Value], has: fn(&str, &str) -> bool) -> Result<Value, Error> {
    let [affix, start, end] = bind(arguments, ["affix", "start", "end"])?;
    let affix = required(affix)?;
    let part = window(s, start.as_ref(), end.as_ref())?;
    let has = |affix: &Value| {
        Ok::<_, Error>(text(affix)?).map(|affix| part.is_some_and(|(_, part)| has(part, affix)))
    };
    if !affix.is_tuple() {
        return Ok(Value::from(has(&affix)?));
    }
    for affix in affix.try_iter()? {
        if has(&affix)? {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

type Search = fn(&str, &str) -> Option<usize>;

fn found(s: &str, arguments: &[Value], must_be: bool, search: Search) -> Result<Value, Error> {
    let [what, start, end] = bind(arguments, ["sub", "start", "end"])?;
    let what = required(what)?;
    let what = text(&what)?;
    let at =
        window(s, start.as_ref(), end.as_ref())?.and_then(|(from, part)| Some(from + search(part, what)?));
    match at {
        Some(at) => Ok(Value::from(s[..at].chars().count())),
        None if must_be => Err(refusal("the text that is looked for is not there")),
        None => Ok(Value::from(-1)),
    }
}

fn replace(state: &State, s: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [old, new, count] = bind(arguments, ["old", "new", "count"])?;
    let (old, new) = (required(old)?, required(new)?);
    let (old, new) = (text(&old)?, text(&new)?);
    let count =
        optional_whole(count.as_ref())?.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let places = s.matches(old).count().min(count);
    pay(state, places.saturating_mul(new.len()))?;
    Ok(Value::from(s.replacen(old, new, count)))
}

fn join(state: &State, s: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [parts] = bind(arguments, ["iterable"])?;
    let mut out = String::new();
    for (i, part) in required(parts)?.try_iter()?.enumerate() {
        let part_text = text(&part)?;
        pay(state, s.len() + part_text.len())?;
        out.push_str(if i > 0 { s } else { "" });
        out.push_str(part_text);
    }
    Ok(Value::from(out))
}

fn expand_tabs(state: &State, s: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [size] = bind(arguments, ["tabsize"])?;
    let size = usize::try_from(optional_whole(size.as_ref())?.unwrap_or(8)).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for c in s.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                let spaces = size - column % size;
                pay(state, spaces)?;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            _ => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::from(out))
}
