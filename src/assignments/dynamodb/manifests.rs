//! Manifests, in pieces: an item has at most 400 KB.
//!
//! A manifest is stored under a unique name (its upload), and then the day's head is set to it: until then the day has the previous
//! one, and concurrent uploads do not mix. The writer that replaces a head deletes the pieces that it named.
//!
//! Each upload has an entry in the day's list of uploads, written before its first piece and deleted after its last one. The pieces
//! of an upload that was throttled for too long are deleted at once. Those of a process that was killed, or that lost its engine,
//! are deleted with the next manifest of the day, once the upload cannot be running any more ([`UPLOAD_MAX`]).

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use super::super::error::Unavailable;
use super::super::store::{StoredManifest, Version};
use super::Dynamodb;
use super::calls::{call_error, together};
use super::tables::{BODY, ITEM, PIECES, SHARD, UPLOAD, VERSION};
use super::values::{Item, count, count_of, malformed, place_of_day, text, text_of};
use crate::values::id::unique;

const PIECE_BYTES: usize = 350_000;
/// Concurrent writes or deletions of pieces.
const PIECES_AT_ONCE: usize = 8;
/// An upload older than this has ended. A GiB has 3,068 pieces, which take at most 384 times as long as a call may.
const UPLOAD_MAX: Duration = Duration::from_secs(2 * 3600);
/// Attempts to read a manifest that is replaced at the same time.
const READS_MAX: u32 = 5;

/// A manifest's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: Version,
    upload: String,
    pieces: u32,
}

impl Head {
    fn of(item: &Item) -> Option<Self> {
        let version = u128::from_str_radix(text_of(item, VERSION)?, 16).ok()?;
        Some(Self {
            version: Version(version),
            upload: text_of(item, UPLOAD)?.to_owned(),
            pieces: count_of(item, PIECES)?,
        })
    }
}

fn shard(date: Date) -> String {
    format!("{date}#manifest")
}

fn head_key(date: Date) -> Item {
    place_of_day(shard(date), "head".to_owned())
}

fn piece_key(date: Date, upload: &str, number: u32) -> Item {
    place_of_day(shard(date), format!("{upload}/{number:04}"))
}

fn uploads(date: Date) -> String {
    format!("{date}#uploads")
}

/// Its name, a UUID of version 7, contains its start time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Upload {
    name: String,
    pieces: u32,
}

impl Upload {
    fn of(item: &Item) -> Option<Self> {
        Some(Self {
            name: text_of(item, ITEM)?.to_owned(),
            pieces: count_of(item, PIECES)?,
        })
    }

    fn key(&self, date: Date) -> Item {
        place_of_day(uploads(date), self.name.clone())
    }

    /// Whether it cannot be running any more.
    fn has_ended(&self, now: Timestamp) -> bool {
        let name = self.name.parse::<Uuid>().ok();
        let began = name.and_then(|name| name.get_timestamp());
        let earliest = now
            .as_second()
            .saturating_sub_unsigned(UPLOAD_MAX.as_secs());
        began.is_none_or(|began| began.to_unix().0.cast_signed() < earliest)
    }
}

impl Dynamodb {
    pub(super) async fn head(&self, date: Date) -> Result<Option<Head>, Unavailable> {
        let Some(item) = self.packages_item(head_key(date)).await? else {
            return Ok(None);
        };
        let head = Head::of(&item).ok_or_else(|| malformed(&self.tables.packages, &item))?;
        Ok(Some(head))
    }

    pub(super) async fn put_manifest(
        &self,
        date: Date,
        manifest: StoredManifest,
    ) -> Result<(), Unavailable> {
        let pieces = manifest.body.len().div_ceil(PIECE_BYTES);
        let upload = Upload {
            name: unique(Timestamp::now()).to_string(),
            pieces: u32::try_from(pieces).map_err(|_| Unavailable::Failed)?,
        };
        let mut listed = upload.key(date);
        listed.insert(PIECES.to_owned(), count(upload.pieces));
        self.put(listed).await?;
        let mut head = head_key(date);
        head.insert(VERSION.to_owned(), text(manifest.version.to_string()));
        head.insert(UPLOAD.to_owned(), text(&upload.name));
        head.insert(PIECES.to_owned(), count(upload.pieces));
        let put = async {
            self.put_pieces(date, &upload, &manifest.body).await?;
            self.put(head).await
        };
        let replaced = match put.await {
            Ok(replaced) => replaced,
            Err(unavailable) => {
                // Without an answer the head may have been written; then its pieces are needed.
                if unavailable == Unavailable::Busy {
                    let store = self.clone();
                    tokio::spawn(async move { store.remove_all(date, vec![upload]).await });
                }
                return Err(unavailable);
            }
        };
        // After a lost answer this may be the same upload; the replaced one is then found in the list of uploads.
        let replaced = replaced.as_ref().and_then(Head::of);
        let replaced = replaced.map(|head| Upload {
            name: head.upload,
            pieces: head.pieces,
        });
        let mut leaving: Vec<_> = replaced.into_iter().collect();
        if let Ok(left) = self.left_behind(date).await {
            leaving.extend(left);
        } else {
            tracing::warn!(%date, "the list of uploads cannot be read");
        }
        leaving.retain(|one| one.name != upload.name);
        self.remove_all(date, leaving).await;
        Ok(())
    }

    async fn put_pieces(
        &self,
        date: Date,
        upload: &Upload,
        body: &Arc<[u8]>,
    ) -> Result<(), Unavailable> {
        let starts = (0..body.len()).step_by(PIECE_BYTES);
        let numbered = (0..upload.pieces).zip(starts);
        let written = together(numbered, PIECES_AT_ONCE, |(number, start)| {
            let (store, body) = (self.clone(), Arc::clone(body));
            let mut item = piece_key(date, &upload.name, number);
            async move {
                let end = body.len().min(start + PIECE_BYTES);
                let piece = Blob::new(&body[start..end]);
                item.insert(BODY.to_owned(), AttributeValue::B(piece));
                store.put(item).await
            }
        });
        written.await.map(drop)
    }

    /// Uploads that have ended, and are not the day's manifest.
    async fn left_behind(&self, date: Date) -> Result<Vec<Upload>, Unavailable> {
        let query = self
            .client
            .query()
            .table_name(&self.tables.packages)
            .consistent_read(true)
            .key_condition_expression("#shard = :shard")
            .expression_attribute_names("#shard", SHARD)
            .expression_attribute_values(":shard", text(uploads(date)));
        let items = self.calls.query(query).await?;
        let now = Timestamp::now();
        let mut ended: Vec<_> = items.iter().filter_map(Upload::of).collect();
        ended.retain(|upload| upload.has_ended(now));
        if !ended.is_empty() {
            let head = self.head(date).await?;
            ended.retain(|upload| head.as_ref().is_none_or(|head| head.upload != upload.name));
        }
        Ok(ended)
    }

    /// Deletes uploads with their pieces. On failure they stay in the list of uploads.
    async fn remove_all(&self, date: Date, leaving: Vec<Upload>) {
        for upload in leaving {
            let removed = async {
                self.remove_pieces(date, &upload).await?;
                self.remove(upload.key(date)).await
            };
            if removed.await.is_err() {
                let upload = upload.name;
                tracing::warn!(%date, upload, "pieces of a manifest are left for the next one to delete");
            }
        }
    }

    pub(super) async fn get_manifest(
        &self,
        date: Date,
    ) -> Result<Option<StoredManifest>, Unavailable> {
        for _ in 0..READS_MAX {
            let Some(head) = self.head(date).await? else {
                return Ok(None);
            };
            if let Some(body) = self.pieces(date, &head).await? {
                let version = head.version;
                let body = body.into();
                return Ok(Some(StoredManifest { version, body }));
            }
            // It was replaced at the same time.
        }
        tracing::warn!(%date, "a manifest has lost pieces, or is replaced all the time");
        Err(Unavailable::Busy)
    }

    /// The body, if it is complete.
    async fn pieces(&self, date: Date, head: &Head) -> Result<Option<Vec<u8>>, Unavailable> {
        let query = self
            .client
            .query()
            .table_name(&self.tables.packages)
            .consistent_read(true)
            .key_condition_expression("#shard = :shard AND begins_with(#item, :upload)")
            .expression_attribute_names("#shard", SHARD)
            .expression_attribute_names("#item", ITEM)
            .expression_attribute_values(":shard", text(shard(date)))
            .expression_attribute_values(":upload", text(format!("{}/", head.upload)));
        // Sorted by number.
        let items = self.calls.query(query).await?;
        if u32::try_from(items.len()) != Ok(head.pieces) {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(items.len() * PIECE_BYTES);
        for item in &items {
            let piece = item.get(BODY).and_then(|piece| piece.as_b().ok());
            let piece = piece.ok_or_else(|| malformed(&self.tables.packages, item))?;
            body.extend_from_slice(piece.as_ref());
        }
        Ok(Some(body))
    }

    async fn remove_pieces(&self, date: Date, old: &Upload) -> Result<(), Unavailable> {
        let removed = together(0..old.pieces, PIECES_AT_ONCE, |number| {
            let store = self.clone();
            let key = piece_key(date, &old.name, number);
            async move { store.remove(key).await }
        });
        removed.await?;
        Ok(())
    }

    /// Puts an item; returns the previous one, if it is a head.
    async fn put(&self, item: Item) -> Result<Option<Item>, Unavailable> {
        let is_head = item.contains_key(VERSION);
        let request = self
            .client
            .put_item()
            .table_name(&self.tables.packages)
            .set_item(Some(item))
            .set_return_values(is_head.then_some(ReturnValue::AllOld));
        let call = self.calls.call(|| {
            let request = request.clone();
            async move { Box::pin(request.send()).await.map_err(call_error) }
        });
        Ok(call.await?.done.attributes)
    }

    async fn remove(&self, key: Item) -> Result<(), Unavailable> {
        let request = self.client.delete_item().set_key(Some(key));
        let request = request.table_name(&self.tables.packages);
        let call = self.calls.call(|| {
            let request = request.clone();
            async move { Box::pin(request.send()).await.map_err(call_error) }
        });
        call.await?;
        Ok(())
    }
}
