# The calls of Odyssey, and nothing else. It creates nothing here: leave `aws.provision` off. `docs/operating.md` shows the same
# policies as JSON; a test compares them.
#
# Checks at the start need DescribeTable, ListBucket, GetTopicAttributes and GetQueueAttributes. Without one of these rights its check
# is `unchecked`, with a warning, and the server starts.

# Assignments and their log.
data "aws_iam_policy_document" "server" {
  # Within a transaction each part counts as its own action.
  statement {
    sid = "Tables"
    actions = [
      "dynamodb:DeleteItem",
      "dynamodb:DescribeTable",
      "dynamodb:GetItem",
      "dynamodb:PutItem",
      "dynamodb:Query",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]
    resources = [aws_dynamodb_table.assignments.arn, aws_dynamodb_table.packages.arn]
  }

  statement {
    sid       = "Index"
    actions   = ["dynamodb:Query"]
    resources = ["${aws_dynamodb_table.assignments.arn}/index/${module.names.by_package}"]
  }

  statement {
    sid       = "Log"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.log.arn}/${module.names.log_prefix}*"]
  }

  # ListObjectsV2, which the check at the start calls.
  statement {
    sid       = "Bucket"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.log.arn]
  }
}

# The couriers' roles can be separate processes: a policy for each. A batch of SQS or SNS needs what one message needs.
data "aws_iam_policy_document" "dispatcher" {
  statement {
    sid       = "Events"
    actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    resources = [aws_sqs_queue.couriers["events"].arn]
  }

  # Assignments, and couriers that staff change (PATCH /courier).
  statement {
    sid       = "Topics"
    actions   = ["sns:GetTopicAttributes", "sns:Publish"]
    resources = [for topic in aws_sns_topic.couriers : topic.arn]
  }

  statement {
    sid       = "NotUnderstood"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}

# It publishes the events that staff send.
data "aws_iam_policy_document" "directory" {
  statement {
    sid       = "Assignments"
    actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    resources = [aws_sqs_queue.couriers["assignments"].arn]
  }

  statement {
    sid       = "Events"
    actions   = ["sns:GetTopicAttributes", "sns:Publish"]
    resources = [aws_sns_topic.couriers["events"].arn]
  }

  statement {
    sid       = "NotUnderstood"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}

# `odyssey couriers redrive`.
data "aws_iam_policy_document" "redrive" {
  statement {
    sid = "DeadLetters"
    actions = [
      "sqs:ChangeMessageVisibility",
      "sqs:DeleteMessage",
      "sqs:GetQueueAttributes",
      "sqs:GetQueueUrl",
      "sqs:ReceiveMessage",
    ]
    resources = [aws_sqs_queue.dead_letters.arn]
  }

  statement {
    sid       = "Back"
    actions   = ["sqs:GetQueueUrl", "sqs:SendMessage"]
    resources = [for queue in aws_sqs_queue.couriers : queue.arn]
  }
}

# Attach them to the roles of the processes; a server that has all roles needs the first three.
resource "aws_iam_policy" "server" {
  name        = module.names.server_policy
  description = "What the server Odyssey calls."
  policy      = data.aws_iam_policy_document.server.json
}

resource "aws_iam_policy" "dispatcher" {
  name        = module.names.dispatcher_policy
  description = "What Odyssey calls as the couriers' dispatcher."
  policy      = data.aws_iam_policy_document.dispatcher.json
}

resource "aws_iam_policy" "directory" {
  name        = module.names.directory_policy
  description = "What Odyssey calls as the couriers' directory."
  policy      = data.aws_iam_policy_document.directory.json
}

resource "aws_iam_policy" "redrive" {
  name        = module.names.redrive_policy
  description = "What odyssey couriers redrive calls."
  policy      = data.aws_iam_policy_document.redrive.json
}
