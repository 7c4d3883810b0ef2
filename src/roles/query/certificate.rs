//! Tenants by certificate: what a client's certificate says stands instead of every header that may name a tenant.

use std::sync::Arc;

use api::Problem;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method};
use model::TenantId;
use secure::PeerNames;

/// A header that all routes look at.
const TENANT_HEADER: &str = "thanos-tenant";

struct Named {
    field: String,
    /// Headers that may name the tenant.
    headers: Vec<String>,
}

/// Lets the certificate's `field` alone say whose request it is on all of `routes`.
pub fn tenants_by(field: &str, headers: Vec<String>, routes: Router) -> Router {
    let named = Arc::new(Named { field: field.to_owned(), headers });
    routes.route_layer(middleware::from_fn_with_state(named, name))
}

async fn name(State(named): State<Arc<Named>>, mut request: Request, next: Next) -> Response {
    let tenant = tenant_of(&named.field, request.extensions().get::<PeerNames>());
    for header in &named.headers {
        request.headers_mut().remove(header.as_str());
    }
    match tenant {
        Ok(tenant) => {
            request.headers_mut().insert(TENANT_HEADER, tenant);
        }
        // Browsers ask without a certificate whether they may ask; that shows no data.
        Err(_) if request.method() == Method::OPTIONS => {}
        Err(why) => return Problem::bad_data(why).into_response(),
    }
    next.run(request).await
}

fn tenant_of(field: &str, names: Option<&PeerNames>) -> Result<HeaderValue, String> {
    let text = names.and_then(|names| names.field(field));
    let text = text.ok_or_else(|| format!("your certificate has no {field}, which names the tenant"))?;
    let tenant = TenantId::new(text).map_err(|error| format!("your certificate's {field}: {error}"))?;
    HeaderValue::from_str(tenant.as_str()).map_err(|error| format!("your certificate's {field}: {error}"))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use http::HeaderMap;
    use tower::ServiceExt;

    use super::*;

    async fn asked(names: Option<PeerNames>, method: Method) -> (u16, String) {
        let shown = async |headers: HeaderMap| {
            format!("{:?} {:?}", headers.get("x-team"), headers.get("thanos-tenant"))
        };
        let routes = Router::new().route("/t", get(shown).options(shown));
        let routes = tenants_by("organization", vec!["X-Team".into(), "THANOS-TENANT".into()], routes);
        let mut request = Request::new(Body::empty());
        (*request.uri_mut(), *request.method_mut()) = ("/t".parse().unwrap(), method);
        for header in ["x-team", "thanos-tenant"] {
            request.headers_mut().insert(header, "team-b".parse().unwrap());
        }
        request.extensions_mut().extend(
            names
                .map(|names| {
                    let mut all = http::Extensions::new();
                    all.insert(names);
                    all
                })
                .unwrap_or_default(),
        );
        let response = routes.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn of(organization: Option<&str>) -> Option<PeerNames> {
        let common_name = Some("client".to_owned());
        Some(PeerNames {
            common_name,
            organization: organization.map(str::to_owned),
            organizational_unit: None,
        })
    }

    #[tokio::test]
    async fn no_header_counts_beside_the_certificate() {
        let (status, seen) = asked(of(Some("team-a")), Method::GET).await;
        assert_eq!((status, seen.as_str()), (200, r#"None Some("team-a")"#));
        for (names, why) in [
            (None, "your certificate has no organization"),
            (of(None), "your certificate has no organization"),
            (of(Some("a/b")), "your certificate's organization: "),
        ] {
            let (status, body) = asked(names, Method::GET).await;
            assert_eq!(status, 400);
            assert!(body.contains(why) && body.contains("bad_data"), "{body}");
        }
        let (status, seen) = asked(None, Method::OPTIONS).await;
        assert_eq!((status, seen.as_str()), (200, "None None"), "nobody is named");
    }
}
