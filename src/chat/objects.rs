//! The values that Python has and minijinja lacks: ranges, the views of a map, and the makers of maps.

use crate::chat::{
    arguments::{bind, pay, refusal, required, whole},
    print,
};
use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Tuple, ValueKind},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Whether a value is one of this file that is no list, even though it has items.
pub fn is_ours(value: &Value) -> bool {
    value.downcast_object_ref::<Range>().is_some() || value.downcast_object_ref::<View>().is_some()
}

/// A value that a template assigns to a name, or to a namespace: the same, but for lists that minijinja would
/// only make as they are read. As what is assigned is not nested too deeply, no value is.
///
/// # Errors
/// Where lists and maps lie within each other too deeply, or a namespace would lie in a namespace.
pub fn kept(state: &State, value: &Value, in_namespace: Option<bool>) -> Result<Value, Error> {
    let value = match value.kind() {
        ValueKind::Iterable if print::is_list(value) => {
            pay(state, value.len().unwrap_or(0).saturating_mul(size_of::<Value>()))?;
            value.try_iter()?.collect()
        }
        _ => value.clone(),
    };
    check(state, &value, in_namespace == Some(true), 0)?;
    Ok(value)
}

fn check(state: &State, value: &Value, in_namespace: bool, depth: usize) -> Result<(), Error> {
    if depth > print::DEEPEST {
        return Err(refusal(format!("lists and maps lie within each other at most {} deep", print::DEEPEST)));
    }
    if is_namespace(value) {
        let refused = || refusal("a namespace cannot hold a namespace: give it what that one holds");
        return if in_namespace { Err(refused()) } else { Ok(()) };
    }
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && value.kind() != ValueKind::Seq {
        return Ok(());
    }
    pay(state, value.len().unwrap_or(0).saturating_mul(4))?;
    for item in value.try_iter()? {
        let item = if is_map { value.get_item(&item)? } else { item };
        check(state, &item, in_namespace, depth + 1)?;
    }
    Ok(())
}

/// Whether a value is what `namespace` gives, which minijinja's interface does not tell otherwise.
pub fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// The longest range that Jinja2's sandbox allows.
const LONGEST_RANGE: i128 = 100_000;

/// What `range` gives: the numbers from `start` by `step`.
#[derive(Debug)]
struct Range {
    start: i64,
    end: i64,
    step: i64,
    length: usize,
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = key.as_usize().filter(|at| *at < self.length)?;
        Some(Value::from(i128::from(self.start) + at as i128 * i128::from(self.step)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range({}, {}", self.start, self.end)?;
        if self.step != 1 {
            write!(f, ", {}", self.step)?;
        }
        f.write_str(")")
    }
}

/// Python's `range`.
///
/// # Errors
/// Where an argument is no whole number, the step is 0, or the range is longer than Jinja2's sandbox allows.
pub fn range(arguments: Rest<Value>) -> Result<Value, Error> {
    let numbers = arguments.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let (start, end, step) = match numbers[..] {
        [end] => (0, end, 1),
        [start, end] => (start, end, 1),
        [start, end, step] => (start, end, step),
        _ => return Err(refusal("range takes one to three numbers")),
    };
    if step == 0 {
        return Err(refusal("the step of a range cannot be 0"));
    }
    let (distance, stride) = (i128::from(end) - i128::from(start), i128::from(step));
    let length = ((distance + stride - stride.signum()) / stride).max(0);
    if length > LONGEST_RANGE {
        return Err(refusal(format!(
            "a range has at most {LONGEST_RANGE} numbers, and this one has {length}"
        )));
    }
    Ok(Value::from_object(Range { start, end, step, length: length as usize }))
}

/// What a map's `keys`, `values` and `items` give.
#[derive(Debug)]
struct View {
    name: &'static str,
    items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = print::represented(&Value::from(self.items.clone())).map_err(|_| fmt::Error)?;
        write!(f, "{}({items})", self.name)
    }
}

/// What `cycler` gives: values that come one after the other, again and again.
#[derive(Debug)]
struct Cycler {
    values: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.values[self.at.load(Ordering::Relaxed)].clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        let [] = bind(arguments, [])?;
        let at = self.at.load(Ordering::Relaxed);
        match method {
            "next" => {
                self.at.store((at + 1) % self.values.len(), Ordering::Relaxed);
                Ok(self.values[at].clone())
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Jinja2's `cycler`.
///
/// # Errors
/// Where there are no values.
pub fn cycler(values: Rest<Value>) -> Result<Value, Error> {
    if values.is_empty() {
        return Err(refusal("a cycler needs values"));
    }
    Ok(Value::from_object(Cycler { values: values.0, at: AtomicUsize::new(0) }))
}

/// Calls a method of a map, a list or a tuple.
///
/// # Errors
/// Of the kind UnknownMethod where there is no such method; of another kind where it would change the value,
/// which the templates' sandbox does not allow.
pub fn call_method(state: &State, of: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    pay(state, of.len().unwrap_or(0).saturating_mul(32))?;
    match of.kind() {
        ValueKind::Map => call_map_method(of, name, arguments),
        ValueKind::Seq | ValueKind::Iterable => call_list_method(of, name, arguments),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn call_map_method(of: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let pairs = || -> Result<Vec<(Value, Value)>, Error> {
        of.try_iter()?.map(|key| Ok((key.clone(), of.get_item(&key)?))).collect()
    };
    let view = |name, items| Value::from_object(View { name, items });
    match name {
        "get" => {
            let [key, default] = bind(arguments, ["key", "default"])?;
            let found = of.as_object().and_then(|map| map.get_value(&required(key.clone()).ok()?));
            required(key)?;
            Ok(found.or(default).unwrap_or_else(|| Value::from(())))
        }
        "keys" => {
            let [] = bind(arguments, [])?;
            Ok(view("dict_keys", pairs()?.into_iter().map(|(key, _)| key).collect()))
        }
        "values" => {
            let [] = bind(arguments, [])?;
            Ok(view("dict_values", pairs()?.into_iter().map(|(_, value)| value).collect()))
        }
        "items" => {
            let [] = bind(arguments, [])?;
            let pair = |(key, value)| Value::from(Tuple::from([key, value]));
            Ok(view("dict_items", pairs()?.into_iter().map(pair).collect()))
        }
        "copy" => {
            let [] = bind(arguments, [])?;
            Ok(Value::from_pairs(pairs()?))
        }
        "fromkeys" => map_from_keys(arguments),
        "clear" | "pop" | "popitem" | "setdefault" | "update" => {
            Err(refusal("a template cannot change a map; `dict(map, key=value)` gives a changed copy"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn call_list_method(of: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match name {
        "count" => {
            let [what] = bind(arguments, ["value"])?;
            let what = required(what)?;
            Ok(Value::from(of.try_iter()?.filter(|item| *item == what).count()))
        }
        "index" => {
            let [what, start, end] = bind(arguments, ["value", "start", "stop"])?;
            let what = required(what)?;
            let length = of.len().unwrap_or(0) as i64;
            let place = |at: Option<Value>, otherwise: i64| -> Result<usize, Error> {
                let at = at.as_ref().map(whole).transpose()?.unwrap_or(otherwise);
                let at = if at < 0 { at.saturating_add(length) } else { at };
                Ok(at.clamp(0, length) as usize)
            };
            let (start, end) = (place(start, 0)?, place(end, length)?);
            let found = of.try_iter()?.take(end).enumerate().skip(start).find(|(_, item)| *item == what);
            let at = found.map(|(at, _)| at);
            Ok(Value::from(at.ok_or_else(|| refusal("the value that is looked for is not in the list"))?))
        }
        "copy" if !of.is_tuple() => {
            let [] = bind(arguments, [])?;
            Ok(of.try_iter()?.collect())
        }
        "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" => {
            Err(refusal("a template cannot change a list; `list + [item]` gives a changed copy"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn map_from_keys(arguments: &[Value]) -> Result<Value, Error> {
    let [keys, value] = bind(arguments, ["iterable", "value"])?;
    let value = value.unwrap_or_else(|| Value::from(()));
    Ok(Value::from_pairs(required(keys)?.try_iter()?.map(|key| (key, value.clone()))))
}

/// The pairs of a map, or of a list of pairs, and then those of the call's names.
fn merged(from: Option<Value>, names: &Kwargs) -> Result<Value, Error> {
    let mut pairs = Vec::new();
    if let Some(from) = from {
        for item in from.try_iter()? {
            if from.kind() == ValueKind::Map {
                pairs.push((item.clone(), from.get_item(&item)?));
                continue;
            }
            let pair: Vec<Value> = item.try_iter()?.take(3).collect();
            let [key, value] = <[Value; 2]>::try_from(pair).map_err(|_| refusal("a map is made of pairs"))?;
            pairs.push((key, value));
        }
    }
    for name in names.args() {
        pairs.push((Value::from(name), names.peek(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// Python's `dict`, which is a function and has the method `fromkeys`.
#[derive(Debug)]
pub struct MakeMap;

impl Object for MakeMap {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let (from, names): (Option<Value>, Kwargs) = minijinja::value::from_args(arguments)?;
        merged(from, &names)
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "fromkeys" => map_from_keys(arguments),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Jinja2's `namespace`: what a loop may assign to.
///
/// # Errors
/// Where a name begins with an underscore, which transformers does not allow.
pub fn namespace(from: Option<Value>, names: Kwargs) -> Result<Value, Error> {
    let all = merged(from, &names)?;
    if all.try_iter()?.any(|name| name.as_str().is_some_and(|name| name.starts_with('_'))) {
        return Err(refusal("the names of a namespace cannot begin with an underscore"));
    }
    minijinja::functions::namespace(Some(all.into()))
}
