//! Manifests, in pieces: an item has 400 KB at most.
//!
//! A manifest is put under a name of its own (its upload), and then its head names it: until then the day has the one before,
//! and two that are put at once do not mix. Whoever replaces a head removes the pieces that it named. A process that is killed
//! between the pieces and the head leaves pieces that nobody names; they cost their storage and nothing else.

use std::sync::Arc;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::Timestamp;
use jiff::civil::Date;

use super::super::error::Unavailable;
use super::super::store::{Sheet, Version};
use super::Dynamodb;
use super::calls::{together, trouble};
use super::tables::{BODY, ITEM, PIECES, SHARD, UPLOAD, VERSION};
use super::values::{Item, count, count_of, missing, place_of_day, text, text_of};
use crate::values::id::unique;

/// Bytes in a piece.
const PIECE_BYTES: usize = 350_000;
/// Pieces that are written or removed at once.
const PIECES_AT_ONCE: usize = 8;
/// How often a manifest may be replaced while it is read.
const READS_MAX: u32 = 5;

/// What is said of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Which it is.
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

impl Dynamodb {
    pub(super) async fn head(&self, date: Date) -> Result<Option<Head>, Unavailable> {
        let Some(item) = self.packages_item(head_key(date)).await? else {
            return Ok(None);
        };
        let head = Head::of(&item).ok_or_else(|| missing(&self.tables.packages))?;
        Ok(Some(head))
    }

    pub(super) async fn put_manifest(&self, date: Date, sheet: Sheet) -> Result<(), Unavailable> {
        let upload = unique(Timestamp::now()).to_string();
        let pieces = sheet.body.len().div_ceil(PIECE_BYTES);
        let pieces = u32::try_from(pieces).map_err(|_| Unavailable::Failed)?;
        let starts = (0..sheet.body.len()).step_by(PIECE_BYTES);
        let numbered = (0..pieces).zip(starts);
        let written = together(numbered, PIECES_AT_ONCE, |(number, start)| {
            let (store, body) = (self.clone(), Arc::clone(&sheet.body));
            let mut item = piece_key(date, &upload, number);
            async move {
                let end = body.len().min(start + PIECE_BYTES);
                let piece = Blob::new(&body[start..end]);
                item.insert(BODY.to_owned(), AttributeValue::B(piece));
                store.put(item).await
            }
        });
        written.await?;
        let mut head = head_key(date);
        head.insert(VERSION.to_owned(), text(sheet.version.to_string()));
        head.insert(UPLOAD.to_owned(), text(&upload));
        head.insert(PIECES.to_owned(), count(pieces));
        let replaced = self.put(head).await?;
        // After an answer that was lost it may be the same one.
        let replaced = replaced.as_ref().and_then(Head::of);
        if let Some(old) = replaced.filter(|old| old.upload != upload)
            && self.remove_pieces(date, &old).await.is_err()
        {
            // The manifest is kept all the same.
            tracing::warn!(%date, "pieces of a manifest that was replaced are left");
        }
        Ok(())
    }

    pub(super) async fn get_manifest(&self, date: Date) -> Result<Option<Sheet>, Unavailable> {
        for _ in 0..READS_MAX {
            let Some(head) = self.head(date).await? else {
                return Ok(None);
            };
            if let Some(body) = self.pieces(date, &head).await? {
                let version = head.version;
                let body = body.into();
                return Ok(Some(Sheet { version, body }));
            }
            // It was replaced meanwhile.
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
        // In the order of their numbers.
        let items = self.calls.query(query).await?;
        if u32::try_from(items.len()) != Ok(head.pieces) {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(items.len() * PIECE_BYTES);
        for item in &items {
            let piece = item.get(BODY).and_then(|piece| piece.as_b().ok());
            let piece = piece.ok_or_else(|| missing(&self.tables.packages))?;
            body.extend_from_slice(piece.as_ref());
        }
        Ok(Some(body))
    }

    async fn remove_pieces(&self, date: Date, old: &Head) -> Result<(), Unavailable> {
        let removed = together(0..old.pieces, PIECES_AT_ONCE, |number| {
            let store = self.clone();
            let key = piece_key(date, &old.upload, number);
            async move { store.remove(key).await }
        });
        removed.await?;
        Ok(())
    }

    /// Puts an item; what was there before, if it is a head.
    async fn put(&self, item: Item) -> Result<Option<Item>, Unavailable> {
        let is_head = !item.contains_key(BODY);
        let request = self
            .client
            .put_item()
            .table_name(&self.tables.packages)
            .set_item(Some(item))
            .set_return_values(is_head.then_some(ReturnValue::AllOld));
        let call = self.calls.call(|| {
            let request = request.clone();
            async move { Box::pin(request.send()).await.map_err(trouble) }
        });
        Ok(call.await?.done.attributes)
    }

    async fn remove(&self, key: Item) -> Result<(), Unavailable> {
        let request = self.client.delete_item().set_key(Some(key));
        let request = request.table_name(&self.tables.packages);
        let call = self.calls.call(|| {
            let request = request.clone();
            async move { Box::pin(request.send()).await.map_err(trouble) }
        });
        call.await?;
        Ok(())
    }
}
