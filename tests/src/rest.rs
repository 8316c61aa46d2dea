//! A REST interface, asked as curl would ask it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio_util::io::ReaderStream;

/// A call that takes longer has failed; what is larger than the tests' files is not sent here.
const CALL: Duration = Duration::from_secs(300);
/// Bytes of a file that are sent at a time.
const CHUNK_LEN: usize = 256 * 1024;

/// What a REST interface answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type, without parameters.
    pub media_type: String,
    /// After how many seconds to ask again, where it says so.
    pub retry_after: Option<u64>,
    /// The body, where it is JSON; else null.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The body of a successful answer.
    ///
    /// # Errors
    /// Where the status says otherwise.
    pub fn ok(self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "the answer is {}: {}", self.status, self.text);
        Ok(self.json)
    }

    /// The stable code of a problem document; empty where it is none.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

/// The REST interface of one program.
#[derive(Debug, Clone)]
pub struct Rest {
    base: String,
    token: Option<String>,
    http: Client,
}

impl Rest {
    /// The one at this base URL.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub fn new(base: impl Into<String>) -> Result<Rest> {
        // Each call a connection of its own: a daemon that was restarted between two calls is then no failure.
        let http = Client::builder().pool_max_idle_per_host(0).no_proxy().timeout(CALL).build()?;
        Ok(Rest { base: base.into(), token: None, http })
    }

    /// The same, with the API token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Rest {
        self.token = Some(token.into());
        self
    }

    /// Its base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The API token that it sends, if any.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// `GET`.
    ///
    /// # Errors
    /// Where there is no answer at all.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask(self.http.get(self.url(path))).await
    }

    /// `POST` without a body.
    ///
    /// # Errors
    /// Where there is no answer at all.
    pub async fn post(&self, path: &str) -> Result<Answer> {
        self.ask(self.http.post(self.url(path))).await
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// Where there is no answer at all.
    pub async fn post_json(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask(self.http.post(self.url(path)).json(body)).await
    }

    /// `POST` of bytes.
    ///
    /// # Errors
    /// Where there is no answer at all.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Result<Answer> {
        self.ask(self.http.post(self.url(path)).body(body.into())).await
    }

    /// `POST` of a file, in a stream.
    ///
    /// # Errors
    /// Where the file cannot be read, or there is no answer at all.
    pub async fn post_file(&self, path: &str, file: &Path) -> Result<Answer> {
        let opened = tokio::fs::File::open(file).await;
        let opened = opened.with_context(|| format!("cannot open {}", file.display()))?;
        let len = opened.metadata().await?.len();
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(opened, CHUNK_LEN));
        let request = self.http.post(self.url(path)).header("content-length", len).body(body);
        self.ask(request).await
    }

    /// A request of one's own making.
    ///
    /// # Errors
    /// Where there is no answer at all.
    pub async fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut request = self.http.request(method.parse()?, self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request).await
    }

    /// Names of the peers (or their URLs) that `/locate` gives for `file`.
    ///
    /// # Errors
    /// Where it does not answer as it should.
    pub async fn locate(&self, file: &str) -> Result<Vec<Value>> {
        let answer = self.get(&format!("/locate?file={}", escaped(file))).await?.ok()?;
        Ok(answer["peers"].as_array().context("no peers in it")?.clone())
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Answer> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.with_context(|| format!("{} does not answer", self.base))?;
        let status = response.status().as_u16();
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().to_owned();
        let retry_after =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, media_type, retry_after, json, text })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// A word inside of a URL.
pub(crate) fn escaped(word: &str) -> String {
    utf8_percent_encode(word, NON_ALPHANUMERIC).to_string()
}
