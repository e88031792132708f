//! Where the shop's callers connect: to their own sidecar, which goes by the host, or to the Service itself.

use mesh_core::ports;

use super::{
    layout::{BATCH, Break, CART, INVENTORY_UPSTREAM, LOAD, Net, STOREFRONT},
    transparent,
};

/// A flag and its value.
pub(crate) type Flag = (&'static str, String);

impl Net {
    /// Flags of the storefront, which calls the catalog and the cart.
    pub(crate) fn storefront_calls(&self) -> Vec<Flag> {
        if self.is_transparent() {
            return vec![
                ("--proxy", transparent::CATALOG.to_owned()),
                ("--cart-proxy", transparent::CART.to_owned()),
            ];
        }
        vec![("--proxy", self.at(STOREFRONT, ports::OUTBOUND).to_string())]
    }

    /// Flags of the cart, which calls the inventory.
    pub(crate) fn cart_calls(&self) -> Vec<Flag> {
        let inventory = match self.is_transparent() {
            true => transparent::INVENTORY.to_owned(),
            false => self.at(CART, INVENTORY_UPSTREAM).to_string(),
        };
        vec![("--inventory", inventory)]
    }

    /// Flags of the batch job, which calls the cart.
    pub(crate) fn batch_calls(&self) -> Vec<Flag> {
        let cart = match self.is_transparent() {
            true => transparent::CART.to_owned(),
            false => self.at(BATCH, ports::OUTBOUND).to_string(),
        };
        vec![("--proxy", cart)]
    }

    /// Flags of the load, which calls the storefront.
    pub(crate) fn load_calls(&self, broken: Option<Break>) -> Vec<Flag> {
        let target = match (broken, self.is_transparent()) {
            // Straight to the port where storefront's sidecar takes mesh TLS, without any.
            (Some(Break::Mtls), _) => self.at(STOREFRONT, 8080).to_string(),
            (None | Some(Break::Split | Break::Policy), true) => transparent::STOREFRONT.to_owned(),
            (None | Some(Break::Split | Break::Policy), false) => self.at(LOAD, ports::OUTBOUND).to_string(),
        };
        vec![("--target", target)]
    }
}
