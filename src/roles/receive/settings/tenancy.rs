//! How tenants are told apart.

use std::path::PathBuf;

use model::TenantId;
use settings::settings;

settings! {
    /// Tenants.
    pub struct Tenancy {
        /// HTTP header that names the tenant of a write. THANOS-TENANT is read as well where it is absent.
        ["receive.tenant-header"] header: String = "THANOS-TENANT".to_owned();
        /// Field of a sender's certificate that names the tenant, instead of the header: organization,
        /// organizationalUnit or commonName. Needs --remote-write.server-tls-client-ca; a certificate without the field is
        /// refused.
        ["receive.tenant-certificate-field"] certificate_field: String = String::new();
        /// File with credentials of senders, each bound to a tenant: bearer tokens (by file or SHA-256) and passwords
        /// (bcrypt). With it every write needs one, and its tenant is that of the credential; tenant "*" may name any in
        /// the header. The file and those it names are read again when they change.
        ["receive.credentials-file"] credentials: Option<PathBuf> = None;
        /// Label that names the tenant of its series in remote writes, for senders that write for many; it is left out of
        /// what is stored. Series without it, and OTLP, go by the header. Empty is off.
        ["receive.split-tenant-label-name"] split_label: String = String::new();
        /// Tenant of writes that name none.
        ["receive.default-tenant-id"] default_id: String = "default-tenant".to_owned();
        /// External label that carries the tenant in blocks and over the StoreAPI.
        ["receive.tenant-label-name"] label: String = "tenant_id".to_owned();
    }
}

impl Tenancy {
    fn validate(&self) -> Result<(), String> {
        TenantId::new(&self.default_id).map_err(|e| format!("--receive.default-tenant-id: {e}"))?;
        http::HeaderName::try_from(self.header.as_str())
            .map_err(|_| format!("--receive.tenant-header: {:?} is not a header name", self.header))?;
        if !["", "organization", "organizationalUnit", "commonName"]
            .contains(&self.certificate_field.as_str())
        {
            return Err(format!(
                "--receive.tenant-certificate-field {:?}: there are organization, organizationalUnit and commonName",
                self.certificate_field
            ));
        }
        if self.credentials.is_some() && !self.certificate_field.is_empty() {
            return Err(
                "--receive.credentials-file and --receive.tenant-certificate-field both name the tenant; give one"
                    .to_owned(),
            );
        }
        if !self.split_label.is_empty() && (self.credentials.is_some() || !self.certificate_field.is_empty())
        {
            return Err(
                "--receive.split-tenant-label-name would let senders past the tenant that their credential or \
                 certificate names; give one of them"
                    .to_owned(),
            );
        }
        match self.label.is_empty() {
            true => Err("--receive.tenant-label-name must not be empty".to_owned()),
            false => Ok(()),
        }
    }
}
