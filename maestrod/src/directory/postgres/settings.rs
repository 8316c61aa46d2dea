//! Where the database is and how it is entered: the address of the configuration, its password, and TLS.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::OpenError;

/// What [`PostgresDirectory`](super::PostgresDirectory) connects to.
#[derive(Clone)]
pub struct Settings {
    pub(super) server: Config,
    ca_file: Option<PathBuf>,
}

/// What is wrong with an address, in one sentence. `None`: nothing.
pub fn check_address(address: &str) -> Option<String> {
    parse(address).err()
}

fn parse(address: &str) -> Result<Config, String> {
    if !address.starts_with("postgresql://") && !address.starts_with("postgres://") {
        return Err("must be \"sqlite\", or an address such as \
                    \"postgresql://maestrod@db.lab/maestrod?sslmode=require\""
            .to_owned());
    }
    // The text is not shown: what is wrong with it may be its password.
    let server: Config = address.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!(
            "is not an address of a PostgreSQL database{cause}; it is like \
                 postgresql://maestrod@db.lab/maestrod?sslmode=require"
        )
    })?;
    if server.get_password().is_some() {
        return Err("has the password in it, where others may read it; put it alone into a file that only \
                    maestrod can read, and name that with store_password_file"
            .to_owned());
    }
    if server.get_hosts().is_empty() {
        return Err(
            "names no host; a socket is named like postgresql:///maestrod?host=/run/postgresql".to_owned()
        );
    }
    Ok(server)
}

impl Settings {
    /// Those of an address, with the password in a file that others may not read, and the certificates in another that
    /// the server's must come from. Without that they are the system's.
    ///
    /// # Errors
    ///
    /// [`OpenError::Refused`], with what to do.
    pub fn new(
        address: &str,
        password_file: Option<&Path>,
        ca_file: Option<&Path>,
    ) -> Result<Settings, OpenError> {
        let mut server = parse(address).map_err(|what| OpenError::Refused(format!("store {what}")))?;
        if let Some(file) = password_file {
            server.password(read_password(file)?);
        }
        Ok(Settings { server, ca_file: ca_file.map(Path::to_owned) })
    }

    /// Host and database, for people.
    pub fn place(&self) -> String {
        let hosts: Vec<String> = self
            .server
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let database = self.server.get_dbname().or(self.server.get_user()).unwrap_or("maestrod");
        format!("{database} on {}", hosts.join(", "))
    }

    /// How the server proves itself. TLS is spoken where the address says so (`sslmode`), and the server must prove its
    /// name then.
    pub(super) fn tls(&self) -> Result<ClientConfig, OpenError> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(file) => {
                let wrong = |what: &dyn std::fmt::Display| {
                    OpenError::Refused(format!(
                        "cannot take the certificates of store_ca_file {}: {what}; it holds certificates as PEM",
                        file.display()
                    ))
                };
                let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| wrong(&error))?;
                    roots.add(certificate).map_err(|error| wrong(&error))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"it has none"));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| OpenError::Refused(error.to_string()))?;
        Ok(versions.with_root_certificates(roots).with_no_client_auth())
    }
}

fn read_password(file: &Path) -> Result<String, OpenError> {
    let shown = file.display();
    let wrong = |error: io::Error| {
        OpenError::Refused(format!(
            "cannot read store_password_file {shown}: {error}; maestrod's user must be able to"
        ))
    };
    let mode = fs::metadata(file).map_err(wrong)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(OpenError::Refused(format!(
            "every user of this machine can read store_password_file {shown}; sudo chmod o= {shown}"
        )));
    }
    let text = fs::read_to_string(file).map_err(wrong)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_its_password_kept_out() {
        for good in [
            "postgresql://maestrod@db.lab/maestrod?sslmode=require",
            "postgres://db1:5433,db2/x?target_session_attrs=read-write",
            "postgresql:///maestrod?host=/run/postgresql",
        ] {
            assert_eq!(check_address(good), None, "{good}");
        }
        for (bad, said) in [
            ("mysql://x", "sqlite"),
            ("postgresql:///maestrod", "names no host"),
            ("postgresql://db/x?sslmode=perhaps", "sslmode"),
            ("postgresql://u:geheim@db/x", "store_password_file"),
        ] {
            let what = check_address(bad).unwrap();
            assert!(what.contains(said) && !what.contains("geheim"), "{bad}: {what}");
        }
    }

    #[test]
    fn a_password_is_read_only_where_others_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "s3 cret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let settings = || Settings::new("postgresql://u@db/x", Some(&file), None);
        let refused = settings().err().unwrap().to_string();
        assert!(refused.contains("chmod") && !refused.contains("s3"), "{refused}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let settings = settings().unwrap();
        assert_eq!(settings.server.get_password(), Some(&b"s3 cret"[..]));
        assert_eq!(settings.place(), "x on db");
    }
}
