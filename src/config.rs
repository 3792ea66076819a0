//! Reads the JSON of a file such as config.json field by field. An error names the field that is wrong and
//! its value.

use crate::{
    architecture::Activation,
    error::{Error, Result},
};
use serde_json::{Map, Value};
use std::{cell::RefCell, collections::BTreeSet};

/// The largest number accepted. Beyond it, or below its inverse, f32 arithmetic overflows or underflows.
const MAX: f64 = 1e15;

/// A config.json, or an object inside it, with the name that error messages call it.
pub struct Config<'a> {
    name: &'a str,
    fields: &'a Map<String, Value>,
    /// The fields that were asked for.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Config<'a> {
    pub fn new(name: &'a str, json: &'a Value) -> Result<Self> {
        let fields = json.as_object().ok_or_else(|| Error::model(format!("{name} is not a JSON object")))?;
        Ok(Self { name, fields, read: RefCell::default() })
    }

    pub fn name(&self) -> &str {
        self.name
    }

    /// The field's value; a null counts as absent.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(field.to_owned());
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// Whether the field is present, even as null.
    pub fn has(&self, field: &str) -> bool {
        self.read.borrow_mut().insert(field.to_owned());
        self.fields.contains_key(field)
    }

    /// Says that these fields are known, whether or not their values are needed.
    pub fn know(&self, fields: &[&str]) {
        self.read.borrow_mut().extend(fields.iter().map(|field| (*field).to_owned()));
    }

    /// The fields that were neither asked for nor said to be known.
    pub fn unread(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let read = self.read.borrow().clone();
        self.fields
            .iter()
            .map(|(field, value)| (field.as_str(), value))
            .filter(move |(f, _)| !read.contains(*f))
    }

    /// An error about a field: its value, and why that is wrong.
    pub fn wrong(&self, field: &str, why: impl std::fmt::Display) -> Error {
        let value = self.get(field).map_or("absent".to_owned(), Value::to_string);
        Error::model(format!("{}: {field} is {value}, but {why}", self.name))
    }

    fn number(&self, field: &str) -> Result<Option<f64>> {
        self.get(field)
            .map(|v| v.as_f64().ok_or_else(|| self.wrong(field, "a number belongs there")))
            .transpose()
    }
    pub fn f64(&self, field: &str, default: f64) -> Result<f64> {
        match self.number(field)? {
            Some(n) if n.abs() > MAX => Err(self.wrong(field, format!("at most {MAX:e} makes sense"))),
            n => Ok(n.unwrap_or(default)),
        }
    }
    /// A number above zero; an error where the field is absent.
    pub fn positive(&self, field: &str) -> Result<f64> {
        match self.number(field)? {
            Some(n) if (1.0 / MAX..=MAX).contains(&n) => Ok(n),
            _ => Err(self.wrong(field, "a number above zero belongs there")),
        }
    }
    /// A number above zero, or the default where the field is absent.
    pub fn positive_or(&self, field: &str, default: f64) -> Result<f64> {
        if self.get(field).is_none() { Ok(default) } else { self.positive(field) }
    }
    /// A norm's epsilon, from 0 to 1.
    pub fn epsilon(&self, field: &str, default: f64) -> Result<f32> {
        match self.number(field)?.unwrap_or(default) {
            n if (0.0..=1.0).contains(&n) => Ok(n as f32),
            _ => Err(self.wrong(field, "a number from 0 to 1 belongs there")),
        }
    }
    pub fn bool(&self, field: &str, default: bool) -> Result<bool> {
        let value = self
            .get(field)
            .map(|v| v.as_bool().ok_or_else(|| self.wrong(field, "true or false belongs there")));
        Ok(value.transpose()?.unwrap_or(default))
    }
    pub fn str(&self, field: &str) -> Result<Option<&'a str>> {
        self.get(field)
            .map(|v| v.as_str().ok_or_else(|| self.wrong(field, "a string belongs there")))
            .transpose()
    }
    /// A whole number from 1 to `most`; none where the field is absent.
    pub fn count(&self, field: &str, most: u32) -> Result<Option<u32>> {
        let count = |v: &Value| {
            v.as_u64()
                .filter(|n| (1..=u64::from(most)).contains(n))
                .map(|n| n as u32)
                .ok_or_else(|| self.wrong(field, format!("a whole number from 1 to {most} belongs there")))
        };
        self.get(field).map(count).transpose()
    }
    /// A dimension of the model: a whole number from 1 to 2^24.
    pub fn size(&self, field: &str, default: u32) -> Result<u32> {
        Ok(self.count(field, 1 << 24)?.unwrap_or(default))
    }
    /// A dimension with several possible field names; those that are present must agree.
    pub fn size_of(&self, fields: &[&str], default: u32) -> Result<u32> {
        let mut named: Option<(&str, u32)> = None;
        for field in fields.iter().filter(|field| self.get(field).is_some()) {
            let size = self.size(field, default)?;
            if let Some((other, _)) = named.filter(|(_, known)| *known != size) {
                return Err(self.wrong(field, format!("{other}, which means the same, is another number")));
            }
            named = Some((field, size));
        }
        Ok(named.map_or(default, |(_, size)| size))
    }
    /// The number of layers, at most 10,000, by the first field that is present.
    pub fn layers(&self, fields: &[&str], default: u32) -> Result<u32> {
        let field = fields.iter().find(|field| self.get(field).is_some());
        Ok(field.map(|field| self.count(field, 10_000)).transpose()?.flatten().unwrap_or(default))
    }
    /// A list with a 0 or 1 (or a boolean) for each layer.
    pub fn flags(&self, field: &str, n_layers: usize) -> Result<Option<Vec<bool>>> {
        let flag = |v: &Value| match v {
            Value::Bool(on) => Some(*on),
            _ => v.as_u64().filter(|n| *n <= 1).map(|n| n == 1),
        };
        let list = |v: &Value| v.as_array()?.get(..n_layers)?.iter().map(flag).collect::<Option<Vec<_>>>();
        let wrong = || self.wrong(field, format!("a 0 or 1 for each of the {n_layers} layers belongs there"));
        self.get(field).map(|v| list(v).ok_or_else(wrong)).transpose()
    }
    /// Which layers use sliding-window attention, as `layer_types` lists them; none where the field is
    /// absent.
    pub fn sliding_layers(&self, n_layers: usize) -> Result<Option<Vec<bool>>> {
        let field = "layer_types";
        let kind = |v: &Value| match v.as_str()? {
            "full_attention" => Some(false),
            "sliding_attention" => Some(true),
            _ => None,
        };
        let list = |v: &Value| v.as_array()?.get(..n_layers)?.iter().map(kind).collect::<Option<Vec<_>>>();
        let wrong = || {
            self.wrong(
                field,
                format!(
                    "full_attention or sliding_attention for each of the {n_layers} layers belongs there"
                ),
            )
        };
        self.get(field).map(|v| list(v).ok_or_else(wrong)).transpose()
    }
    /// A token id or a list of token ids. Anything else in the field is ignored.
    pub fn ids(&self, field: &str) -> Vec<u32> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(field) {
            Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
            Some(one) => id(one).into_iter().collect(),
            None => Vec::new(),
        }
    }
    /// An activation by its name in config.json.
    pub fn activation(&self, field: &str, default: &str) -> Result<Activation> {
        let name = self.str(field)?.unwrap_or(default);
        let found = Activation::NAMES.iter().find(|(n, _)| *n == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<_> = Activation::NAMES.iter().map(|(n, _)| *n).collect();
            self.wrong(field, format!("the activations there are: {}", known.join(", ")))
        })
    }
    /// The width of a head: `hidden_size / n_heads`.
    ///
    /// # Errors
    /// Where `n_heads`, the value of `field`, does not divide `hidden_size`.
    pub fn head_dim(&self, field: &str, n_heads: u32, hidden_size: u32) -> Result<u32> {
        if !hidden_size.is_multiple_of(n_heads) {
            return Err(self.wrong(field, format!("it must divide the hidden size {hidden_size}")));
        }
        Ok(hidden_size / n_heads)
    }
}
