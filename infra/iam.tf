# What the server calls, where, and nothing else. It creates nothing here: leave `aws.provision` off.
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

# Attach it to the role that the server runs as.
resource "aws_iam_policy" "server" {
  name        = module.names.server_policy
  description = "What the server Odyssey calls."
  policy      = data.aws_iam_policy_document.server.json
}
