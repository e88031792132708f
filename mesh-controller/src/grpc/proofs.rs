//! What proves an identity: in a standalone mesh the tokens that it made itself, and then the certificate; in a cluster
//! a token of Kubernetes, anew for each certificate.

use std::sync::Arc;

use mesh_core::{
    identity::{SpiffeId, TrustDomain},
    name::WorkloadRef,
};
use mesh_k8s::Compiled;
use mesh_proto::identity::v1::certify_request::Proof;
use tonic::Status;

use super::peer::Peer;
use crate::{
    ca::{CaError, Tokens},
    kubernetes::{BoundPod, ClusterError, Reviews, TokenError},
};

/// What is accepted as a proof.
pub(crate) enum Proofs {
    /// Tokens of our own, and certificates.
    Own(Tokens),
    /// Projected tokens of ServiceAccounts.
    Kubernetes(Box<Reviews>),
}

/// What was proven.
#[derive(Debug)]
pub(super) struct Proven {
    /// The identity.
    pub(super) identity: SpiffeId,
    /// The only pod that has it by this proof; None: each workload of that identity.
    pub(super) pod: Option<BoundPod>,
}

impl Proofs {
    /// Makes tokens for accounts that have none, where they are made here. Returns how many are new.
    pub(crate) fn ensure(&self, compiled: &Compiled) -> Result<usize, CaError> {
        match self {
            Self::Own(tokens) => {
                let accounts = compiled.service_accounts.iter();
                tokens.ensure(accounts.map(|(namespace, name)| (namespace.as_str(), name.as_str())))
            }
            Self::Kubernetes(_) => Ok(0),
        }
    }

    /// True where each caller is a pod, with an address of its own, and proves that.
    pub(super) fn are_of_pods(&self) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Kubernetes(_) => true,
        }
    }

    /// Whose a proof is.
    pub(super) async fn prove(
        &self,
        proof: Option<Proof>,
        peer: &Peer,
        trust_domain: &TrustDomain,
    ) -> Result<Proven, Status> {
        let service_account = |namespace: &str, account: &str| {
            SpiffeId::service_account(trust_domain, namespace, account)
                .map_err(|e| Status::internal(format!("service account {namespace}/{account}: {e}")))
        };
        match (self, proof) {
            (_, None) => Err(Status::unauthenticated(
                "no proof of identity: give the proxy the token of its service account with --token-file",
            )),
            (Self::Own(_), Some(Proof::CurrentCertificate(_))) => {
                let identity = peer.identity.as_ref().ok_or_else(|| {
                    Status::unauthenticated(
                        "the connection has no client certificate to prove anything: send the token instead",
                    )
                })?;
                Ok(Proven { identity: identity.id.clone(), pod: None })
            }
            (Self::Kubernetes(_), Some(Proof::CurrentCertificate(_))) => Err(Status::unauthenticated(
                "in a cluster a certificate proves nothing about its successor: send the pod's token, with --token-file",
            )),
            (Self::Own(tokens), Some(Proof::Token(token))) => {
                let (namespace, account) = tokens.account(&token).ok_or_else(|| {
                    Status::unauthenticated(
                        "the token is not known here: use the file tokens/NAMESPACE/SERVICEACCOUNT \
                         in the data directory of this controller",
                    )
                })?;
                Ok(Proven { identity: service_account(&namespace, &account)?, pod: None })
            }
            (Self::Kubernetes(reviews), Some(Proof::Token(token))) => {
                let pod = reviews.review(&token).await.map_err(|error| refusal(&error))?;
                Ok(Proven { identity: service_account(&pod.namespace, &pod.account)?, pod: Some(pod) })
            }
        }
    }

    /// What to do when the proof is for another service account than the workload's.
    pub(super) fn mend(&self, workload: &WorkloadRef, wanted: &str) -> String {
        match self {
            Self::Own(_) => format!(
                "use the token tokens/{}/{wanted}, or correct the Workload's serviceAccount",
                workload.namespace
            ),
            Self::Kubernetes(_) => "use the token that is projected into the pod".to_owned(),
        }
    }

    /// How a workload that is not known comes to be.
    pub(super) fn unknown(&self, workload: &WorkloadRef) -> String {
        match self {
            Self::Own(_) => {
                format!(
                    "there is no Workload {workload}: add it to the source, or correct the proxy's --workload"
                )
            }
            Self::Kubernetes(_) => format!(
                "there is no pod {workload} with a container mesh-proxy: correct the proxy's --workload, \
                 or wait until the controller has heard of it"
            ),
        }
    }
}

impl Proven {
    /// Checks that the workload that the proxy names is the pod that the proof is for. `uid` is that of the pod of that
    /// name, as far as it is known.
    pub(super) fn check_pod(&self, workload: &WorkloadRef, uid: Option<&Arc<str>>) -> Result<(), Status> {
        let Some(pod) = &self.pod else { return Ok(()) };
        if (&*workload.namespace, &*workload.name) != (&*pod.namespace, &*pod.name) {
            return Err(Status::permission_denied(format!(
                "the token is of pod {}/{}, the proxy says that it runs in {workload}: correct its --workload",
                pod.namespace, pod.name
            )));
        }
        match uid {
            Some(uid) if !uid.is_empty() && !pod.uid.is_empty() && **uid != *pod.uid => {
                Err(Status::permission_denied(format!(
                    "the token is of another pod that was or will be called {workload}: use this one's"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Which answer a proxy gets. UNAVAILABLE: the same token may do in a moment.
fn refusal(error: &TokenError) -> Status {
    let told = error.to_string();
    match error {
        TokenError::Malformed | TokenError::Audience(_) | TokenError::NotAuthenticated(_) => {
            Status::unauthenticated(told)
        }
        TokenError::NoAccount(_) | TokenError::Reserved | TokenError::NoPod => {
            Status::permission_denied(told)
        }
        TokenError::Unchecked(ClusterError::Away { .. }) => Status::unavailable(told),
        TokenError::Unchecked(ClusterError::Refused { .. } | ClusterError::NoCluster(_)) => {
            // What is wrong with the controller's rights is not the proxy's business.
            tracing::error!(
                error = told,
                "tokens cannot be reviewed: the controller needs `create` on tokenreviews"
            );
            Status::internal("the controller may not check tokens: see its log")
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_proof_is_for_one_pod_only() {
        let pod = |uid: &str| BoundPod {
            namespace: "shop".into(),
            account: "cart".into(),
            name: "cart-1".into(),
            uid: uid.into(),
        };
        let check =
            |bound: Option<BoundPod>, named: (&str, &str), uid: Option<&str>, expected: Option<&str>| {
                let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
                let workload = WorkloadRef { namespace: named.0.into(), name: named.1.into() };
                let uid = uid.map(Arc::from);
                let refused = Proven { identity, pod: bound }.check_pod(&workload, uid.as_ref()).err();
                assert!(refused.iter().all(|status| status.code() == Code::PermissionDenied));
                let told = refused.map(|status| status.message().to_owned());
                assert_eq!(told.is_some(), expected.is_some(), "{told:?}");
                assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()));
            };
        check(Some(pod("u-1")), ("shop", "cart-1"), Some("u-1"), None);
        check(Some(pod("u-1")), ("shop", "cart-1"), None, None);
        check(Some(pod("u-1")), ("shop", "cart-1"), Some(""), None);
        check(Some(pod("")), ("shop", "cart-1"), Some("u-1"), None);
        check(Some(pod("u-1")), ("shop", "cart-1"), Some("u-2"), Some("another pod"));
        check(Some(pod("u-1")), ("shop", "cart-2"), Some("u-1"), Some("pod shop/cart-1"));
        check(Some(pod("u-1")), ("other", "cart-1"), Some("u-1"), Some("runs in other/cart-1"));
        check(None, ("other", "cart-1"), Some("u-1"), None);
    }

    #[test]
    fn each_refusal_has_the_code_that_says_whether_to_try_again() {
        let away = ClusterError::Away { what: "x".into(), why: "connection refused".into() };
        let refused = ClusterError::Refused { what: "x".into(), code: 403, why: "secret detail".into() };
        let checks = [
            (TokenError::Malformed, Code::Unauthenticated, "projected"),
            (TokenError::Audience(vec!["a".into()]), Code::Unauthenticated, "audience"),
            (TokenError::NotAuthenticated("expired".into()), Code::Unauthenticated, "expired"),
            (TokenError::NoAccount("admin".into()), Code::PermissionDenied, "admin"),
            (TokenError::Reserved, Code::PermissionDenied, "another"),
            (TokenError::NoPod, Code::PermissionDenied, "no pod"),
            (away.into(), Code::Unavailable, "connection refused"),
            (refused.into(), Code::Internal, "see its log"),
        ];
        for (error, code, text) in checks {
            let status = refusal(&error);
            assert_eq!(status.code(), code, "{error}");
            assert!(
                status.message().contains(text) && !status.message().contains("secret detail"),
                "{status}"
            );
        }
    }
}
