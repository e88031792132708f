//! Parts of what a proxy has, for people.

use serde_json::Value;

use crate::{
    admin,
    cli::Part,
    cmd::{now_millis, when},
    out::{
        Out,
        table::{self, Column, Table},
        units,
    },
};

/// One part, as lines.
pub(super) fn text(part: Part, answer: &Value, out: &Out) -> anyhow::Result<String> {
    let table = match part {
        Part::Status => {
            let facts = admin::facts(answer);
            let fields: Vec<(&str, String)> =
                facts.iter().map(|(name, v)| (name.as_str(), v.clone())).collect();
            return Ok(table::fields(0, &fields));
        }
        Part::Certificates => return Ok(certificate(answer, now_millis())),
        Part::Config => return Ok(serde_saphyr::to_string(answer)?),
        Part::Listeners => listeners(&answer["listeners"]),
        Part::Destinations => destinations(answer),
        Part::Routes => routes(answer),
        Part::Endpoints => endpoints(answer),
        Part::Edges => edges(answer),
    };
    Ok(if table.is_empty() { "none\n".to_owned() } else { table.render(out.width(), out.is_colored()) })
}

fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text, or a dash.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn texts(value: &Value) -> String {
    let texts: Vec<&str> = all(value).filter_map(Value::as_str).collect();
    if texts.is_empty() { "any request".to_owned() } else { texts.join(", or ") }
}

fn listeners(listeners: &Value) -> Table {
    let mut table = Table::new(&[Column::text("ADDRESS"), Column::text("ROLE")]);
    all(listeners).for_each(|one| table.row([word(&one["address"]).into(), word(&one["role"]).into()]));
    table
}

fn destinations(answer: &Value) -> Table {
    let columns = ["NAME", "LEADS TO", "PROTOCOL", "RULES", "VERSION"];
    let mut table = Table::new(&columns.map(Column::text));
    for one in all(answer) {
        let destination = &one["destination"];
        let service = &destination["service"];
        let leads = match (one["pending"] == true, service["name"].as_str(), destination.as_str()) {
            (true, ..) => "not answered yet".to_owned(),
            (false, Some(service), _) => service.to_owned(),
            (false, None, Some(text)) => text.to_owned(),
            (false, None, None) => format!("unknown: {}", word(&destination["unknown"])),
        };
        let rules =
            service["rules"].as_array().map_or_else(|| "-".to_owned(), |rules| rules.len().to_string());
        let version = word(&one["version"]).chars().take(12).collect::<String>();
        table.row([word(&one["name"]), leads, word(&service["protocol"]), rules, version].map(Into::into));
    }
    table
}

fn routes(answer: &Value) -> Table {
    let mut table = Table::new(&["SERVICE", "FROM", "MATCHES", "BACKENDS"].map(Column::text));
    for one in all(answer) {
        let service = &one["destination"]["service"];
        for rule in all(&service["rules"]) {
            let backend =
                |backend: &Value| format!("{} {}", word(&backend["service"]), word(&backend["weight"]));
            let backends: Vec<String> = all(&rule["backends"]).map(backend).collect();
            let (from, matches) = (word(&rule["object"]), texts(&rule["matches"]));
            table.row([word(&service["name"]), from, matches, backends.join(", ")].map(Into::into));
        }
    }
    table
}

fn endpoints(answer: &Value) -> Table {
    let columns = ["SERVICE", "ADDRESS", "WORKLOAD", "IDENTITY", "PROTOCOL", "ZONE"];
    let mut table = Table::new(&columns.map(Column::text));
    for set in all(answer) {
        for one in all(&set["endpoints"]) {
            let fields =
                ["address", "workload", "identity", "protocol", "zone"].map(|field| word(&one[field]));
            let [address, workload, identity, protocol, zone] = fields;
            table.row([word(&set["name"]), address, workload, identity, protocol, zone].map(Into::into));
        }
    }
    table
}

fn edges(answer: &Value) -> Table {
    let columns = ["DIRECTION", "SOURCE", "DESTINATION", "SERVICE", "REQUESTS", "FAILURES"];
    let mut table = Table::new(&columns.map(Column::text));
    for one in all(answer) {
        let fields = ["direction", "source", "destination", "service", "requests", "failures"];
        table.row(fields.map(|field| word(&one[field]).into()));
    }
    table
}

fn certificate(answer: &Value, now: i64) -> String {
    let end = answer["not_after"].as_i64();
    let until = end.map_or_else(
        || "not known".to_owned(),
        |end| format!("{} ({})", when(end, now), units::timestamp(end).unwrap_or_default()),
    );
    let roots: Vec<String> =
        all(&answer["roots"]).map(|root| format!("sha256:{}", word(&root["sha256"]))).collect();
    let fields = [
        ("Identity", word(&answer["identity"])),
        ("Serial", word(&answer["serial"])),
        ("Expires", until),
        ("Roots", if roots.is_empty() { "none".to_owned() } else { roots.join("\n") }),
    ];
    table::fields(0, &fields)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn destinations_and_their_rules() {
        let rules = json!([{"object": "TrafficSplit shop/catalog", "matches": [],
            "backends": [{"service": "shop/catalog-v1:8080", "weight": 90}, {"service": "shop/catalog-v2:8080", "weight": 10}]}]);
        let service = json!({"name": "shop/catalog:8080", "protocol": "http", "rules": rules});
        let answer = json!([
            {"name": "host/catalog:8080", "version": "0123456789abcdef", "destination": {"service": service}},
            {"name": "host/example.org:443", "version": "1", "destination": "passthrough"},
            {"name": "host/nobody:80", "version": "2", "destination": {"unknown": "no such Service"}},
            {"name": "host/later:80", "pending": true},
        ]);
        let shown = destinations(&answer).render(None, false);
        for line in [
            "host/catalog:8080     shop/catalog:8080         http      1      0123456789ab",
            "host/example.org:443  passthrough               -         -      1",
            "host/nobody:80        unknown: no such Service  -         -      2",
            "host/later:80         not answered yet          -         -      -",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        let shown = routes(&answer).render(None, false);
        assert!(shown.contains("any request  shop/catalog-v1:8080 90, shop/catalog-v2:8080 10"), "{shown}");
    }

    #[test]
    fn what_is_odd_is_no_panic() {
        for odd in [json!(null), json!("x"), json!([1, null, {"endpoints": 3}])] {
            assert!(endpoints(&odd).is_empty(), "{odd}");
            let _shown = (routes(&odd), destinations(&odd), edges(&odd), certificate(&odd, 0));
        }
    }
}
