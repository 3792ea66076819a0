//! JSON as Python's `json.dumps` writes it, which is what transformers makes of the filter `tojson`.

use crate::chat::{
    arguments::{bind, pay, refusal, required, text, whole},
    objects, print,
};
use minijinja::{
    Error, State, Value,
    value::{Rest, ValueKind, ValueOrKwargs},
};
use std::cmp::Ordering;

/// The filter `tojson`, with the arguments that transformers gives it: `ensure_ascii`, `indent`, `separators`
/// and `sort_keys`.
///
/// # Errors
/// Where Python refuses a value or an argument, and where values are nested too deeply.
pub fn to_json(state: &State, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let parameters = ["x", "ensure_ascii", "indent", "separators", "sort_keys"];
    let [value, ascii, indent, separators, sort_keys] = bind(&arguments.into_values(), parameters)?;
    let given = |argument: Option<Value>| argument.filter(|value| !value.is_none());
    let indent = match given(indent) {
        Some(indent) if indent.kind() == ValueKind::String => Some(text(&indent)?.to_owned()),
        Some(indent) => {
            let spaces = usize::try_from(whole(&indent)?).unwrap_or(0);
            pay(state, spaces)?;
            Some(" ".repeat(spaces))
        }
        None => None,
    };
    let [between_items, after_key] = match given(separators) {
        Some(separators) => {
            let both = separators.try_iter()?.map(|one| Ok(text(&one)?.to_owned()));
            let both = both.collect::<Result<Vec<_>, Error>>()?;
            both.try_into()
                .map_err(|_| refusal("the separators of JSON are two: between items, and after a key"))?
        }
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
    };
    let is_true = |argument: Option<Value>| argument.is_some_and(|value| value.is_true());
    let mut writer = Writer {
        state,
        out: String::new(),
        ascii: is_true(ascii),
        sort_keys: is_true(sort_keys),
        indent,
        between_items,
        after_key,
    };
    writer.write(&required(value)?, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    out: String,
    ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    between_items: String,
    after_key: String,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > print::DEEPEST {
            return Err(refusal("a value is nested too deeply to be JSON"));
        }
        let not_json = || refusal(format!("a value of the kind {} cannot be JSON", value.kind()));
        match value.kind() {
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default())?,
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    sort(&mut keys)?;
                }
                self.write_all("{", "}", keys, depth, |writer, key| {
                    match key.as_str() {
                        Some(key) => writer.write_text(key)?,
                        None => {
                            let name = scalar(key)
                                .ok_or_else(|| refusal("a key of JSON cannot be a list or a map"))?;
                            writer.write_text(&name)?;
                        }
                    }
                    writer.out.push_str(&writer.after_key);
                    writer.write(&value.get_item(key)?, depth + 1)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable if !objects::is_ours(value) => {
                let items = value.try_iter()?.collect();
                self.write_all("[", "]", items, depth, |writer, item| writer.write(item, depth + 1))?;
            }
            _ => self.out.push_str(&scalar(value).ok_or_else(not_json)?),
        }
        Ok(())
    }

    fn write_all(
        &mut self,
        open: &str,
        close: &str,
        items: Vec<Value>,
        depth: usize,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push_str(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push_str(&self.between_items);
            }
            self.break_line(depth + 1)?;
            write(self, item)?;
        }
        if !items.is_empty() {
            self.break_line(depth)?;
        }
        self.out.push_str(close);
        Ok(())
    }

    fn break_line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            pay(self.state, indent.len() * depth)?;
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
        Ok(())
    }

    fn write_text(&mut self, text: &str) -> Result<(), Error> {
        pay(self.state, text.len())?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                ..' ' => self.escape(c),
                '\x7f'.. if self.ascii => self.escape(c),
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }

    /// One escape for each half that UTF-16 makes of a character.
    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

/// Values without parts, but for texts.
fn scalar(value: &Value) -> Option<String> {
    Some(match value.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => value.is_true().to_string(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => match f64::try_from(value.clone()).ok()? {
            number if number.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            number => print::float(number),
        },
        _ => return None,
    })
}

/// Sorts keys as Python does, which compares texts with texts and numbers with numbers alone.
fn sort(keys: &mut [Value]) -> Result<(), Error> {
    let is_number = |key: &Value| matches!(key.kind(), ValueKind::Number | ValueKind::Bool);
    let all_alike = keys.iter().all(|key| key.as_str().is_some()) || keys.iter().all(is_number);
    if keys.len() > 1 && !all_alike {
        return Err(refusal("keys of different kinds cannot be sorted"));
    }
    keys.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    Ok(())
}
