# The couriers' two topics. Each has a queue of its own (sqs.tf):
#
#   events-topic -> events-queue -> dispatcher -> assignments-topic -> assignments-queue -> directory
locals {
  channels = {
    events      = { topic = module.names.events_topic, queue = module.names.events_queue }
    assignments = { topic = module.names.assignments_topic, queue = module.names.assignments_queue }
  }
}

resource "aws_sns_topic" "couriers" {
  for_each = local.channels

  name = each.value.topic
  # With AWS's own key every role of this account with the right to publish can, without a policy of the key.
  kms_master_key_id = "alias/aws/sns"
}

# Who may publish, their roles say (iam.tf).
data "aws_iam_policy_document" "topics" {
  for_each = local.channels

  statement {
    sid    = "OverTlsOnly"
    effect = "Deny"
    # SNS refuses `sns:*` here.
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.couriers[each.key].arn]

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

resource "aws_sns_topic_policy" "couriers" {
  for_each = local.channels

  arn    = aws_sns_topic.couriers[each.key].arn
  policy = data.aws_iam_policy_document.topics[each.key].json
}

# Raw: what was published, without SNS's envelope around it.
resource "aws_sns_topic_subscription" "couriers" {
  for_each = local.channels

  topic_arn            = aws_sns_topic.couriers[each.key].arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.couriers[each.key].arn
  raw_message_delivery = true

  # SNS drops what it is not permitted to deliver.
  depends_on = [aws_sqs_queue_policy.couriers]
}
