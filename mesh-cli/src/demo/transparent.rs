//! The example's YAML for a transparent demo: Services have addresses, and services listen where they are called.

/// Where the storefront is called. Nobody has this address: only the mesh knows where it leads.
pub(crate) const STOREFRONT: &str = "10.96.0.1:80";
/// Where the catalog is called, whatever its version.
pub(crate) const CATALOG: &str = "10.96.0.2:80";
/// Where the carts are called.
pub(crate) const CART: &str = "10.96.0.3:7070";
/// Where the stock is called.
pub(crate) const INVENTORY: &str = "10.96.0.4:7000";

/// Services by name.
const SERVICES: [(&str, &str); 4] =
    [("storefront", STOREFRONT), ("catalog", CATALOG), ("cart", CART), ("inventory", INVENTORY)];

/// Lines of the example that only explicit mode needs begin or go on with one of these.
const EXPLICIT: [&str; 4] =
    ["# `address` is where", "# Cart asks inventory over plain TCP", "upstreams:", "- {listenPort:"];

/// A file of the example as a transparent demo has it.
pub(crate) fn yaml(text: &str) -> String {
    let objects: Vec<String> = text.split("---\n").map(object).collect();
    objects.join("---\n")
}

fn object(text: &str) -> String {
    let is_needed = |line: &&str| !EXPLICIT.iter().any(|start| line.trim_start().starts_with(start));
    let lines = text.lines().filter(is_needed).map(|line| without_app_address(line) + "\n");
    let text: String = lines.collect();
    let named = |name: &str| text.contains(&format!("kind: Service\nmetadata: {{name: {name},"));
    match SERVICES.iter().find(|(name, _)| named(name)) {
        Some((_, at)) => {
            let ip = at.split(':').next().unwrap_or_default();
            text.replacen("\nspec:\n", &format!("\nspec:\n  clusterIP: {ip}\n"), 1)
        }
        None => text,
    }
}

/// A port's line, without where explicit mode finds the application.
fn without_app_address(line: &str) -> String {
    match line.split_once(", appAddress: \"") {
        Some((before, after)) => format!("{before}{}", after.split_once('"').map_or("", |(_, rest)| rest)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_and_explicit_mode_goes() {
        let text = yaml(
            "# x\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec:\n  selector: {app: cart}\n---\n\
             kind: Service\nmetadata: {name: catalog-v1, namespace: shop}\nspec:\n  selector: {}\n---\n\
             spec:\n  ports:\n  - {name: g, appProtocol: grpc, appAddress: \"127.77.0.6:9070\"}\n  upstreams:\n  - {listenPort: 1}\n",
        );
        let expected = "# x\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec:\n  clusterIP: 10.96.0.3\n  selector: {app: cart}\n---\n\
             kind: Service\nmetadata: {name: catalog-v1, namespace: shop}\nspec:\n  selector: {}\n---\n\
             spec:\n  ports:\n  - {name: g, appProtocol: grpc}\n";
        assert_eq!(text, expected);
    }
}
