//! The filters and tests of Jinja2 that minijinja lacks or has otherwise.

use crate::chat::{
    arguments::{bind, optional_whole, pay, refusal, required, text, whole},
    percent, print, source, text as texts,
};
use minijinja::{
    Environment, Error, State, Value,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs},
};

type Arguments = Rest<ValueOrKwargs>;

/// Adds the filters and tests to an environment, and removes those that Jinja2 lacks.
pub fn add_to(environment: &mut Environment) {
    environment.add_filter("abs", abs);
    environment.add_filter("center", center);
    environment.add_filter("d", default);
    environment.add_filter("default", default);
    environment.add_filter("dictsort", sort_map);
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_filter("filesizeformat", file_size);
    environment.add_filter("float", to_float);
    environment.add_filter("forceescape", |value: &Value| -> Result<Value, Error> {
        Ok(Value::from_safe_string(escaped(&print::printed(value)?)))
    });
    environment.add_filter("indent", indent);
    environment.add_filter("int", to_int);
    environment.add_filter("pprint", |value: &Value| print::represented(value));
    environment.add_filter("random", |value: &Value| -> Result<Value, Error> {
        let items: Vec<Value> = value.try_iter()?.collect();
        let now = chrono::Utc::now().timestamp_subsec_nanos() as usize;
        Ok(items.get(now % items.len().max(1)).cloned().unwrap_or_default())
    });
    environment.add_filter(source::REMAINDER, percent::remainder);
    environment.add_filter("replace", replace);
    environment.add_filter("round", round);
    environment.add_filter("string", |value: &Value| -> Result<Value, Error> {
        Ok(if value.is_safe() { value.clone() } else { Value::from(print::printed(value)?) })
    });
    environment.add_filter("striptags", |value: &Value| -> Result<String, Error> {
        Ok(minijinja_contrib::filters::striptags(print::printed(value)?))
    });
    environment.add_filter("title", |value: &Value| -> Result<String, Error> {
        Ok(minijinja::filters::title(print::printed(value)?.into()))
    });
    environment.add_filter("trim", trim);
    environment.add_filter("truncate", truncate);
    environment.add_filter("urlencode", encode_for_url);
    environment.add_filter("wordcount", |value: &Value| -> Result<usize, Error> {
        let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
        Ok(print::printed(value)?.split(|c| !is_of_word(c)).filter(|word| !word.is_empty()).count())
    });
    environment.add_filter("wordwrap", wrap_words);
    environment.add_filter("xmlattr", to_attributes);
    environment.add_filter("sort", |state: &State, arguments: Arguments| {
        let parameters = ["value", "reverse", "case_sensitive", "attribute"];
        let [value, options @ ..] = bind(&arguments.into_values(), parameters)?;
        minijinja::filters::sort(state, required(value)?, named(&parameters[1..], options))
    });
    type Choice = fn(&State, Value, Kwargs) -> Result<Value, Error>;
    use minijinja::filters::{max, min, unique};
    for (name, choose) in [("max", max as Choice), ("min", min), ("unique", unique)] {
        environment.add_filter(name, move |state: &State, arguments: Arguments| {
            let parameters = ["value", "case_sensitive", "attribute"];
            let [value, options @ ..] = bind(&arguments.into_values(), parameters)?;
            choose(state, required(value)?, named(&parameters[1..], options))
        });
    }
    for name in ["bool", "chain", "lines", "split", "zip"] {
        environment.remove_filter(name);
    }
    environment.add_test("callable", is_callable);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    for (name, is) in [("lower", texts::is_lower as fn(&str) -> bool), ("upper", texts::is_upper)] {
        environment.add_test(name, move |state: &State, value: &Value| -> Result<bool, Error> {
            let text = print::printed(value)?;
            pay(state, text.len())?;
            Ok(is(&text))
        });
    }
    environment.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Map | ValueKind::Seq => true,
        _ => print::is_list(value),
    });
    environment.add_test("filter", |state: &State, name: &Value| {
        name.as_str().is_some_and(|name| minijinja::tests::is_filter(state, name))
    });
    environment.add_test("test", |state: &State, name: &Value| {
        name.as_str().is_some_and(|name| minijinja::tests::is_test(state, name))
    });
    for name in ["endingwith", "safe", "startingwith"] {
        environment.remove_test(name);
    }
}

fn abs(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(Value::from(whole(&value)?)),
        _ => minijinja::filters::abs(value),
    }
}

fn center(state: &State, arguments: Arguments) -> Result<Value, Error> {
    let [value, width] = bind(&arguments.into_values(), ["value", "width"])?;
    let value = Value::from(print::printed(&required(value)?)?);
    texts::call_method(state, &value, "center", &[width.unwrap_or_else(|| Value::from(80))])
}

fn default(arguments: Arguments) -> Result<Value, Error> {
    let [value, default, boolean] = bind(&arguments.into_values(), ["value", "default_value", "boolean"])?;
    let value = required(value)?;
    let also_false = boolean.is_some_and(|boolean| boolean.is_true());
    let is_missing = value.is_undefined() || also_false && !value.is_true();
    Ok(if is_missing { default.unwrap_or_else(|| Value::from("")) } else { value })
}

fn sort_map(arguments: Arguments) -> Result<Value, Error> {
    let parameters = ["value", "case_sensitive", "by", "reverse"];
    let [value, options @ ..] = bind(&arguments.into_values(), parameters)?;
    minijinja::filters::dictsort(&required(value)?, named(&parameters[1..], options))
}

/// Arguments by name, for filters that do not take them by position.
fn named<const N: usize>(parameters: &[&'static str], arguments: [Option<Value>; N]) -> Kwargs {
    let pairs = parameters.iter().zip(arguments);
    pairs.filter_map(|(name, argument)| Some((*name, argument?))).collect()
}

fn escape(value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    Ok(Value::from_safe_string(escaped(&print::printed(value)?)))
}

/// A text for HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

fn file_size(arguments: Arguments) -> Result<String, Error> {
    let [value, binary] = bind(&arguments.into_values(), ["value", "binary"])?;
    let bytes = float(&required(value)?)?.ok_or_else(|| refusal("the size of a file is a number"))?;
    // Python cuts sizes below one unit to whole bytes.
    let bytes = if bytes.abs() < 1000. { bytes.trunc() } else { bytes };
    Ok(minijinja_contrib::filters::filesizeformat(bytes, binary.map(|binary| binary.is_true())))
}

/// What Python's `float` makes of a value; none where it is no number.
pub fn float(value: &Value) -> Result<Option<f64>, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(refusal("an undefined value is no number")),
        ValueKind::String => Ok(text(value)?.trim().replace('_', "").parse().ok()),
        ValueKind::Bool => Ok(Some(if value.is_true() { 1. } else { 0. })),
        ValueKind::Number if value.is_integer() => Ok(value.to_string().parse().ok()),
        _ => Ok(f64::try_from(value.clone()).ok()),
    }
}

fn to_float(arguments: Arguments) -> Result<Value, Error> {
    let [value, default] = bind(&arguments.into_values(), ["value", "default"])?;
    let number = float(&required(value)?)?.map(Value::from);
    Ok(number.or(default).unwrap_or_else(|| Value::from(0.)))
}

fn to_int(arguments: Arguments) -> Result<Value, Error> {
    let [value, default, base] = bind(&arguments.into_values(), ["value", "default", "base"])?;
    let value = required(value)?;
    let base = optional_whole(base.as_ref())?.unwrap_or(10);
    if value.is_integer() {
        return Ok(value);
    }
    if let Some(number) = value.as_str().and_then(|text| parse_int(text, base)) {
        return Ok(Value::from(number));
    }
    match float(&value)? {
        Some(number) if number.is_finite() && number.abs() < 1e38 => Ok(Value::from(number as i128)),
        Some(number) if number.is_finite() => Err(refusal("a number is too large to be a whole number")),
        Some(_) if value.as_str().is_none() => Err(refusal("what is not finite is no whole number")),
        _ => Ok(default.unwrap_or_else(|| Value::from(0))),
    }
}

/// What Python's `int` makes of a text; base 0 goes by the prefix.
fn parse_int(text: &str, base: i64) -> Option<i128> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, its_base)| {
        let rest = digits.to_ascii_lowercase().strip_prefix(prefix)?.to_owned();
        (base == 0 || base == its_base).then_some((rest, its_base))
    });
    let (digits, base) = prefixed.unwrap_or_else(|| (digits.to_owned(), if base == 0 { 10 } else { base }));
    let is_grouped_well =
        !digits.starts_with(['_', '+', '-']) && !digits.ends_with('_') && !digits.contains("__");
    let radix = u32::try_from(base).ok().filter(|base| (2..=36).contains(base) && is_grouped_well)?;
    let number = i128::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

fn indent(state: &State, arguments: Arguments) -> Result<Value, Error> {
    let parameters = ["s", "width", "first", "blank"];
    let [value, width, first, blank] = bind(&arguments.into_values(), parameters)?;
    let value = required(value)?;
    let width = width.unwrap_or_else(|| Value::from(4));
    let indent = match width.as_str() {
        Some(indent) => indent.to_owned(),
        None => {
            let spaces = usize::try_from(whole(&width)?).unwrap_or(0);
            pay(state, spaces)?;
            " ".repeat(spaces)
        }
    };
    let is_true = |argument: Option<Value>| argument.is_some_and(|value| value.is_true());
    let (first, blank) = (is_true(first), is_true(blank));
    // A line break at the end is kept, for the text after it counts as a line.
    let lines = [text(&value)?, "\n"].concat();
    let mut out = String::new();
    for (i, (line, _)) in texts::lines(&lines).into_iter().enumerate() {
        pay(state, indent.len())?;
        out.push_str(if i > 0 { "\n" } else { "" });
        let is_indented = if i == 0 { first } else { blank || !line.is_empty() };
        out.extend([if is_indented { &*indent } else { "" }, line]);
    }
    Ok(if value.is_safe() { Value::from_safe_string(out) } else { Value::from(out) })
}

fn replace(state: &State, arguments: Arguments) -> Result<Value, Error> {
    let [value, old, new, count] = bind(&arguments.into_values(), ["s", "old", "new", "count"])?;
    let text = |argument| Ok::<_, Error>(Value::from(print::printed(&required(argument)?)?));
    let (value, old, new) = (text(value)?, text(old)?, text(new)?);
    texts::call_method(state, &value, "replace", &[old, new, count.unwrap_or_else(|| Value::from(()))])
}

fn round(arguments: Arguments) -> Result<Value, Error> {
    let [value, precision, method] = bind(&arguments.into_values(), ["value", "precision", "method"])?;
    let value = required(value)?;
    let digits = precision.as_ref().map(whole).transpose()?.unwrap_or(0).clamp(-400, 400) as i32;
    let method = method.as_ref().map(text).transpose()?.unwrap_or("common");
    let is_whole = value.is_integer() || value.kind() == ValueKind::Bool;
    let number = match value.kind() {
        ValueKind::Number | ValueKind::Bool => float(&value)?.unwrap_or(f64::NAN),
        _ => return Err(refusal("what is rounded must be a number")),
    };
    let scale = 10f64.powi(digits);
    Ok(match method {
        "ceil" => Value::from((number * scale).ceil() / scale),
        "floor" => Value::from((number * scale).floor() / scale),
        "common" if is_whole && digits >= 0 => Value::from(i128::try_from(value)?),
        "common" if is_whole => Value::from(((number * scale).round_ties_even() / scale) as i128),
        "common" if !number.is_finite() => value,
        // Decimal digits are rounded from the exact value, as Python does.
        "common" if digits >= 0 => {
            Value::from(format!("{number:.*}", digits as usize).parse().unwrap_or(number))
        }
        "common" => Value::from((number * scale).round_ties_even() / scale),
        _ => return Err(refusal("the methods of rounding are common, ceil and floor")),
    })
}

fn trim(state: &State, arguments: Arguments) -> Result<Value, Error> {
    let [value, chars] = bind(&arguments.into_values(), ["value", "chars"])?;
    let value = Value::from(print::printed(&required(value)?)?);
    texts::call_method(state, &value, "strip", &[chars.unwrap_or_else(|| Value::from(()))])
}

fn truncate(state: &mut State, arguments: Arguments) -> Result<Value, Error> {
    let parameters = ["s", "length", "killwords", "end", "leeway"];
    let [value, options @ ..] = bind(&arguments.into_values(), parameters)?;
    let value = Value::from(print::printed(&required(value)?)?);
    minijinja_contrib::filters::truncate(state, &value, named(&parameters[1..], options))
}

fn encode_for_url(value: &Value) -> Result<String, Error> {
    let quoted = |value: &Value, in_query: bool| -> Result<String, Error> {
        let mut out = String::new();
        for byte in print::printed(value)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
                b'/' if !in_query => out.push('/'),
                b' ' if in_query => out.push('+'),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        Ok(out)
    };
    let mut pairs = Vec::new();
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                pairs.push([quoted(&key, true)?, quoted(&value.get_item(&key)?, true)?].join("="));
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for pair in value.try_iter()? {
                let parts =
                    pair.try_iter()?.map(|part| quoted(&part, true)).collect::<Result<Vec<_>, _>>()?;
                if parts.len() != 2 {
                    return Err(refusal("what a query is made of are pairs"));
                }
                pairs.push(parts.join("="));
            }
        }
        _ => return quoted(value, false),
    }
    Ok(pairs.join("&"))
}

fn wrap_words(arguments: Arguments) -> Result<Value, Error> {
    let parameters = ["s", "width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [value, options @ ..] = bind(&arguments.into_values(), parameters)?;
    minijinja_contrib::filters::wordwrap(&required(value)?, named(&parameters[1..], options))
}

fn to_attributes(arguments: Arguments) -> Result<String, Error> {
    let [value, with_space] = bind(&arguments.into_values(), ["d", "autospace"])?;
    let value = required(value)?;
    if value.kind() != ValueKind::Map {
        return Err(refusal("the attributes of XML are made of a map"));
    }
    let mut attributes = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = text(&key)?;
        if name.contains(|c: char| texts::is_space(c) || matches!(c, '/' | '>' | '=')) {
            return Err(refusal(format!("{name} cannot be the name of an attribute of XML")));
        }
        attributes.push(format!("{}=\"{}\"", escaped(name), text(&escape(&item)?)?));
    }
    let attributes = attributes.join(" ");
    let with_space = with_space.is_none_or(|with_space| with_space.is_true());
    Ok(if with_space && !attributes.is_empty() { format!(" {attributes}") } else { attributes })
}

fn is_callable(value: &Value) -> bool {
    let is_macro = value.kind() == ValueKind::Map && value.to_string().starts_with("<macro ");
    is_macro || matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined)
}
