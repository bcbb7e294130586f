# What Odyssey calls, where, and nothing else. It creates nothing here: leave `aws.provision` off.

# Assignments and their log.
data "aws_iam_policy_document" "server" {
  # Within a transaction each part counts as its own action.
  statement {
    sid = "Tables"
    actions = [
      "dynamodb:DeleteItem",
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
}

# The couriers' roles can be separate processes: a policy for each. A batch of SQS or SNS needs what one message needs. At the
# start each queue is asked for its attributes: that shows whether it exists.
data "aws_iam_policy_document" "dispatcher" {
  statement {
    sid       = "Events"
    actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    resources = [aws_sqs_queue.couriers["events"].arn]
  }

  # Assignments; and how a courier is from now on, when staff say so.
  statement {
    sid       = "Topics"
    actions   = ["sns:Publish"]
    resources = [for topic in aws_sns_topic.couriers : topic.arn]
  }

  statement {
    sid       = "NotUnderstood"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}

# It publishes what staff tell of couriers and orders.
data "aws_iam_policy_document" "directory" {
  statement {
    sid       = "Assignments"
    actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    resources = [aws_sqs_queue.couriers["assignments"].arn]
  }

  statement {
    sid       = "Events"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.couriers["events"].arn]
  }

  statement {
    sid       = "NotUnderstood"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}

# `odyssey couriers redrive`, which somebody runs when what was not understood would be now.
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

# Attach them to the roles that do it; a server that does all of it has the first three.
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
