locals {
  # A message is received again after this time, unless its consumer extends it.
  visibility_seconds = 30
  # Long polling, at its longest.
  wait_seconds = 20
  # 14 days, the longest there is.
  retention_seconds = 14 * 24 * 60 * 60
}

# Messages of the topics, until the dispatcher and the directory have stored them.
resource "aws_sqs_queue" "couriers" {
  for_each = local.channels

  name                       = each.value.queue
  visibility_timeout_seconds = local.visibility_seconds
  receive_wait_time_seconds  = local.wait_seconds
  message_retention_seconds  = local.retention_seconds
  sqs_managed_sse_enabled    = true

  # The server itself sends there what can never be understood, and says why. SQS counts receipts, not reasons. This is the
  # highest bound there is: more than 8 hours of receipts in vain.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = 1000
  })
}

# What can never be understood, of both queues. `odyssey couriers redrive` brings it back.
resource "aws_sqs_queue" "dead_letters" {
  name                       = module.names.dead_letter_queue
  visibility_timeout_seconds = local.visibility_seconds
  receive_wait_time_seconds  = local.wait_seconds
  message_retention_seconds  = local.retention_seconds
  sqs_managed_sse_enabled    = true
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.url

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [for queue in aws_sqs_queue.couriers : queue.arn]
  })
}

data "aws_iam_policy_document" "queues" {
  for_each = local.channels

  statement {
    sid       = "FromItsTopic"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.couriers[each.key].arn]

    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_sns_topic.couriers[each.key].arn]
    }
  }

  statement {
    sid       = "OverTlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.couriers[each.key].arn]

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

resource "aws_sqs_queue_policy" "couriers" {
  for_each = local.channels

  queue_url = aws_sqs_queue.couriers[each.key].url
  policy    = data.aws_iam_policy_document.queues[each.key].json
}

data "aws_iam_policy_document" "dead_letters" {
  statement {
    sid       = "OverTlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.dead_letters.arn]

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

resource "aws_sqs_queue_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.url
  policy    = data.aws_iam_policy_document.dead_letters.json
}
