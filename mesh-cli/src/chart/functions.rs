//! Functions of Helm's (and of its library Sprig) that the chart uses. What a template engine of Go has itself, such as
//! `printf` and `eq`, `gtmpl_ng` brings.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use gtmpl_ng::{Context, Func, FuncError, NumberKind, Template, Value as Variable};
use serde_json::{Map, Value};

const FUNCTIONS: [(&str, Func); 9] = [
    ("default", default),
    ("fail", fail),
    ("include", include),
    ("int", int),
    ("nindent", nindent),
    ("quote", quote),
    ("sha256sum", sha256sum),
    ("toJson", to_json),
    ("toYaml", to_yaml),
];

/// Makes them known.
pub(super) fn add_to(template: &mut Template) {
    template.add_funcs(&FUNCTIONS);
}

fn wrong(message: impl Into<String>) -> FuncError {
    FuncError::Generic(message.into())
}

fn exactly<'a, const N: usize>(name: &str, args: &'a [Variable]) -> Result<&'a [Variable; N], FuncError> {
    args.try_into().map_err(|_| FuncError::ExactlyXArgs(name.to_owned(), N))
}

fn is_empty(value: &Variable) -> bool {
    match value {
        Variable::NoValue | Variable::Nil => true,
        Variable::Bool(value) => !value,
        Variable::String(text) => text.is_empty(),
        Variable::Array(items) => items.is_empty(),
        Variable::Map(fields) | Variable::Object(fields) => fields.is_empty(),
        Variable::Number(number) => number.as_f64().is_some_and(|number| number == 0.0),
        Variable::Function(_) => false,
    }
}

/// `default DEFAULT VALUE`
fn default(args: &[Variable]) -> Result<Variable, FuncError> {
    let [default, value] = exactly("default", args)?;
    Ok(if is_empty(value) { default.clone() } else { value.clone() })
}

/// `fail MESSAGE`
fn fail(args: &[Variable]) -> Result<Variable, FuncError> {
    let [message] = exactly("fail", args)?;
    Err(wrong(message.to_string()))
}

/// `include NAME CONTEXT`: what `template` writes, as a value.
fn include(args: &[Variable]) -> Result<Variable, FuncError> {
    let [name, context] = exactly("include", args)?;
    let text = format!("{{{{ template {} . }}}}", Value::from(name.to_string()));
    let rendered = super::expand("include", &text, &Context::from(context.clone()));
    Ok(Variable::from(rendered.map_err(|error| wrong(error.to_string()))?))
}

/// `int VALUE`
fn int(args: &[Variable]) -> Result<Variable, FuncError> {
    let [value] = exactly("int", args)?;
    match json(value)? {
        #[expect(clippy::cast_possible_truncation, reason = "as in Go")]
        Value::Number(number) => {
            Ok(Variable::from(number.as_i64().or_else(|| number.as_f64().map(|f| f as i64)).unwrap_or(0)))
        }
        Value::String(text) => Ok(Variable::from(text.parse::<i64>().unwrap_or(0))),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Ok(Variable::from(0_i64)),
    }
}

/// `nindent SPACES TEXT`
fn nindent(args: &[Variable]) -> Result<Variable, FuncError> {
    let [spaces, text] = exactly("nindent", args)?;
    let Variable::Number(spaces) = spaces else { return Err(wrong("nindent: the first is no number")) };
    let spaces = spaces.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < 100);
    let pad = " ".repeat(spaces.ok_or_else(|| wrong("nindent: from 0 to 99"))?);
    Ok(Variable::from(format!("\n{pad}{}", text.to_string().replace('\n', &format!("\n{pad}")))))
}

/// `quote VALUE`
fn quote(args: &[Variable]) -> Result<Variable, FuncError> {
    let [value] = exactly("quote", args)?;
    Ok(Variable::from(Value::from(value.to_string()).to_string()))
}

/// `sha256sum TEXT`
fn sha256sum(args: &[Variable]) -> Result<Variable, FuncError> {
    let [text] = exactly("sha256sum", args)?;
    let mut hex = String::with_capacity(64);
    for byte in digest(&SHA256, text.to_string().as_bytes()).as_ref() {
        write!(hex, "{byte:02x}").map_err(|error| wrong(error.to_string()))?;
    }
    Ok(Variable::from(hex))
}

/// `toJson VALUE`, with names in order, and with what HTML would misread escaped as Go does.
fn to_json(args: &[Variable]) -> Result<Variable, FuncError> {
    let [value] = exactly("toJson", args)?;
    let text = sorted(json(value)?).to_string();
    let text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    Ok(Variable::from(text))
}

/// `toYaml VALUE`
fn to_yaml(args: &[Variable]) -> Result<Variable, FuncError> {
    let [value] = exactly("toYaml", args)?;
    let text = serde_saphyr::to_string(&sorted(json(value)?)).map_err(|error| wrong(error.to_string()))?;
    Ok(Variable::from(text.trim_end_matches('\n')))
}

/// Names in order, whatever a map of `serde_json` does.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> =
                fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(fields))
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn json(value: &Variable) -> Result<Value, FuncError> {
    Ok(match value {
        Variable::NoValue | Variable::Nil => Value::Null,
        Variable::Bool(value) => Value::Bool(*value),
        Variable::String(text) => Value::String(text.clone()),
        Variable::Array(items) => Value::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Variable::Map(fields) | Variable::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Value::Object(fields.collect::<Result<_, FuncError>>()?)
        }
        Variable::Number(number) => match number.kind() {
            NumberKind::Signed(number) => Value::from(number),
            NumberKind::Unsigned(number) => Value::from(number),
            NumberKind::Float(number) => Value::from(number),
        },
        Variable::Function(_) => return Err(wrong("a function is no value")),
    })
}
