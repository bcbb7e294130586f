# The operational log: one object per batch, logs/dt=YYYY-MM-DD/hr=HH/<instance>-<uuid>.ndjson.gz.
resource "aws_s3_bucket" "log" {
  #checkov:skip=CKV_AWS_18:It is a log itself; a log of who wrote it would need another bucket
  #checkov:skip=CKV_AWS_144:A copy in another region is a decision about money, not a default
  #checkov:skip=CKV_AWS_145:S3's own keys encrypt it; a key of KMS is asked, and paid, for every batch
  #checkov:skip=CKV2_AWS_62:Nothing waits for its objects
  bucket = module.names.log_bucket
}

resource "aws_s3_bucket_ownership_controls" "log" {
  bucket = aws_s3_bucket.log.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "log" {
  bucket = aws_s3_bucket.log.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "log" {
  bucket = aws_s3_bucket.log.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# The server may write and nothing else. With versions, writing over an object destroys nothing.
resource "aws_s3_bucket_versioning" "log" {
  bucket = aws_s3_bucket.log.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "log" {
  #checkov:skip=CKV_AWS_300:The first rule does it, for all keys that can be written; the check wants a rule without a prefix
  bucket = aws_s3_bucket.log.id

  rule {
    id     = "log"
    status = "Enabled"

    filter {
      prefix = module.names.log_prefix
    }

    transition {
      days          = var.log_transition_days
      storage_class = "STANDARD_IA"
    }

    expiration {
      days = var.log_expiry_days
    }

    noncurrent_version_expiration {
      noncurrent_days = var.log_recovery_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  # What expires leaves a marker, which stays until its last version is gone. It cannot be in the rule above.
  rule {
    id     = "markers"
    status = "Enabled"

    filter {
      prefix = module.names.log_prefix
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  # Rules about versions are for a bucket that has them.
  depends_on = [aws_s3_bucket_versioning.log]
}

data "aws_iam_policy_document" "log_over_tls" {
  statement {
    sid       = "OverTlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.log.arn, "${aws_s3_bucket.log.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "log" {
  bucket = aws_s3_bucket.log.id
  policy = data.aws_iam_policy_document.log_over_tls.json

  # S3 refuses two changes of who may come in at once.
  depends_on = [aws_s3_bucket_public_access_block.log]
}
